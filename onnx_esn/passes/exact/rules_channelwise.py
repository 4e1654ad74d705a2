"""Numbers for operators with parameters for each channel: normalizations and (de)quantization."""

from __future__ import annotations

import math

import numpy as np
import onnx

from onnx_esn.graph.channels.propagation import along
from onnx_esn.graph.evaluate import attributes, evaluate_node
from onnx_esn.passes.exact.ranges import scaled
from onnx_esn.passes.exact.walk import Walk, attribute, typed


def batch_norm(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """A factor and a shift per channel; a factor of 0 leaves the shift."""
    attrs = attributes(node)
    if attrs.get("training_mode", 0) or len([o for o in node.output if o]) > 1:
        return
    out = node.output[0]
    rank = len(walk.shape(out))
    x = walk.view(node.input[0], [1], rank).reshape(-1)
    constants = walk.analysis.constants
    gamma, beta, mean, variance = (constants.value(n).astype(np.float64) for n in node.input[1:5])
    gain = gamma / np.sqrt(variance + attrs.get("epsilon", 1e-5))
    shift = beta - gain * mean
    table = np.stack([x.astype(np.float64), gain + 0.0, shift + 0.0], axis=1)
    ids = walk.keyed("BatchNormalization", table)
    known = np.where(gain == 0, 0.0, walk.values.constants(x))
    still = ~np.isnan(known)
    ids[still] = walk.constant_ids(walk.rounded((gain * known + shift)[still], out))
    low, high = scaled(*walk.values.ranges(x), gain, shift)
    ids[~still] = walk.values.within(ids, low, high)[~still]
    walk.put(out, along(ids, 1, rank))


def instance_norm(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Each channel by itself: the bias is left of a zero channel, or behind a zero scale."""
    out = node.output[0]
    rank = len(walk.shape(out))
    columns = [walk.view(node.input[0], [1], rank).reshape(-1)]
    columns += [walk.view(n, [0], 1) for n in node.input[1:3]]
    table = np.stack(np.broadcast_arrays(*columns), axis=1)
    ids = walk.keyed((walk.signature(node), walk.rest(out, [1], rank)), table)
    known = walk.values.constants(table)
    still = ((known[:, 0] == 0) | (known[:, 1] == 0)) & ~np.isnan(known[:, 2])
    walk.put(out, along(np.where(still, table[:, 2], ids), 1, rank))


def quantized(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """QuantizeLinear, DequantizeLinear: constants run through with the scale of their own place."""
    elementwise_keys(walk, node)
    out, data = node.output[0], node.input[0]
    ids = walk.ids[out]
    source = walk.view(data, walk.axes(out), len(walk.shape(out)))
    known = np.broadcast_to(walk.values.constants(source), ids.shape)
    still = ~np.isnan(known)
    axis = int(attribute(node, "axis", 1)) % len(walk.shape(out))
    scalar = all(math.prod(walk.shape(n)) == 1 for n in node.input[1:] if n)
    if still.any() and (scalar or axis in walk.axes(out)):
        x = typed(np.where(still, known, 0.0), walk.analysis.facts.types[data])
        rest = [walk.analysis.constants.value(n) if n else None for n in node.input[1:]]
        y = np.asarray(evaluate_node(node, [x, *rest], walk.opset)[0], np.float64)
        walk.ids[out] = np.where(still, walk.constant_ids(walk.rounded(y, out)), ids)


def elementwise_keys(walk: Walk, node: onnx.NodeProto) -> None:
    """Numbers from the data and from parameters (C,) along the attribute `axis`, or scalars."""
    out = node.output[0]
    axes, rank = walk.axes(out), len(walk.shape(out))
    axis = int(attribute(node, "axis", 1)) % rank
    sizes = [n if a in axes else 1 for a, n in enumerate(walk.shape(out))]
    columns = [walk.view(node.input[0], axes, rank)]
    for name in node.input[1:]:
        if not name:
            continue
        x = walk.analysis.constants.value(name)
        if x.ndim > 1 or (x.size > 1 and axis not in axes):
            columns.append(walk.keyed(name, np.zeros((1, 1))).reshape((1,) * rank))
        else:
            columns.append(along(walk.constant_ids(x.reshape(-1).astype(np.float64)), axis, rank))
    table = np.stack([np.broadcast_to(c, sizes).reshape(-1) for c in columns], axis=1)
    walk.put(out, walk.keyed(walk.signature(node), table).reshape(sizes))
