"""Random CNN graphs, valid by construction: what the fuzzer feeds to the pruner.

A graph grows node by node. Each step draws an operator or a small idiom that fits one of the
tensors so far; the shape of every tensor is known here (`sizes` stands for what only a run
decides), so that no shape inference is needed to stay valid. Loose ends get a head of their own or
become outputs.
"""

from __future__ import annotations

from tests.graph.random_graphs import blocks, control, elementwise, layers, movement
from tests.graph.random_graphs.grower import Grower
from tests.graph.random_graphs.sizes import sizes_of_run as sizes_of_run

LAYERS = [
    layers.conv, layers.plain_conv, layers.plain_conv, layers.plain_conv, layers.depthwise,
    layers.conv_1d, layers.deconv, layers.gemm, layers.linear, layers.linear_left, layers.einsum,
    layers.twice, layers.tied, layers.indirect, layers.indirect,
]  # fmt: skip
POINTWISE = [
    elementwise.unary, elementwise.clip, elementwise.prelu, elementwise.batch_norm,
    elementwise.binary, elementwise.binary, elementwise.broadcast, elementwise.with_constant,
    elementwise.where, elementwise.fill, elementwise.quantized, elementwise.scale_by_width,
]  # fmt: skip
MIXING = [
    elementwise.instance_norm, elementwise.group_norm, elementwise.layer_norm, elementwise.product,
    elementwise.reduce, elementwise.softmax, elementwise.pool, elementwise.resize,
]  # fmt: skip
MOVEMENT = [
    movement.concat, movement.concat, movement.split, movement.halves, movement.slice_,
    movement.gather, movement.gather_table, movement.last_of, movement.gather_nd, movement.pad,
    movement.transpose, movement.unfold_axis, movement.merge_axes, movement.shuffle,
    movement.flatten, movement.unsqueeze, movement.squeeze, movement.tile, movement.depth_to_space,
    movement.space_to_depth, movement.widen,
]  # fmt: skip
BLOCKS = [
    blocks.squeeze_excite, blocks.residual, blocks.dense_chain, blocks.u_net,
    blocks.gated_linear_unit, blocks.hierarchical, blocks.spatial_gate, blocks.attention,
    blocks.channel_attention, blocks.nhwc, blocks.inverted_residual,
]  # fmt: skip
CONTROL = [
    control.if_, control.loop, control.function, control.fused_conv, control.stranger,
    control.arg_max,
]  # fmt: skip
RULES = LAYERS + POINTWISE + MIXING + MOVEMENT + BLOCKS + CONTROL

# What onnxruntime runs in bfloat16.
BFLOAT = [
    layers.conv, layers.plain_conv, layers.depthwise, layers.gemm, layers.linear, layers.twice,
    layers.indirect, elementwise.unary, elementwise.binary, elementwise.with_constant,
    movement.concat, movement.split, movement.slice_, movement.gather, movement.transpose,
    movement.unfold_axis, movement.merge_axes, movement.shuffle, movement.flatten, blocks.residual,
    blocks.dense_chain,
]  # fmt: skip


def random_model(random, most=15):
    """A random model of up to `most` drawn operators or idioms."""
    g = Grower(random)
    layers.plain_conv(g, g.pool[0])
    for _ in range(g.pick(2, most)):
        g.step(BFLOAT if g.bfloat else RULES)
    return g.finish()
