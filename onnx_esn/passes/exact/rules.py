"""Which rule gives the numbers behind each operator; the others give numbers that equal no other.

A rule takes the walk, the index of a node and the node, and puts the numbers of its outputs.
"""

from __future__ import annotations

from onnx_esn.graph.channels import rules
from onnx_esn.graph.movement import MOVES
from onnx_esn.passes.exact.rules_channelwise import batch_norm, instance_norm, quantized
from onnx_esn.passes.exact.rules_elementwise import dropout, elementwise
from onnx_esn.passes.exact.rules_layers import layer
from onnx_esn.passes.exact.rules_movement import concat, expanded, filled, movement, pad
from onnx_esn.passes.exact.rules_spatial import reduction, spatial
from onnx_esn.passes.exact.walk import Rule

RULES: dict[str, Rule] = {
    **dict.fromkeys(rules.UNARY, elementwise),
    **dict.fromkeys(rules.NARY, elementwise),
    **dict.fromkeys(rules.POOLS, spatial),
    **dict.fromkeys(rules.REDUCTIONS, reduction),
    **dict.fromkeys(MOVES, movement),
    **dict.fromkeys(("Cast", "CastLike"), elementwise),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), quantized),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), layer),
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "Dropout": dropout,
    "Concat": concat,
    "Pad": pad,
    "ConstantOfShape": filled,
    "Expand": expanded,
}
