"""Label rules of operators that mix positions: pooling, reductions, normalisations, resizing.

Positions that are mixed stand or fall together. Over spatial axes labels do not change, so they
pass; over the channel axis the mixed channels become one class, which is the whole width unless
the axis holds groups.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.channels.propagation import Propagation, along, others
from onnx_esn.graph.movement import MovementError
from onnx_esn.graph.node_names import describe


def spatial(p: Propagation, node: onnx.NodeProto) -> None:
    """Pooling, resizing, sampling: channels on axis 1 pass, everything else is mixed."""
    x = p.get(node.input[0])
    for name in node.input[1:]:
        p.space.lock(p.get(name), f"steers {describe(node)}")
    if x is None:
        return
    shape = p.shape(node.input[0])
    out = p.shape(node.output[0])
    if len(out) < 2 or out[1] != shape[1]:
        p.barrier(node, "it changes the number of channels")
        return
    x = p.space.tie_along(x, others(len(shape), 1), f"pooled in {describe(node)}")
    for name in node.output[1:]:
        if p.uses[name]:
            p.space.lock(x, f"counted across by the indices of {describe(node)}")
    if x.size > 1:
        for name in node.output:
            p.put(name, along(x.reshape(-1), 1, len(out)))
    else:
        p.space.lock(x, f"pooled in {describe(node)}")


def mix(p: Propagation, node: onnx.NodeProto, x: Labels, axes: list[int]) -> Labels | None:
    """Tie along `axes`; lock what then is one class across the whole tensor, and return None."""
    reason = f"mixed over its channels in {describe(node)}"
    mixed = p.space.tie_along(x, axes, reason)
    if mixed.size > 1:
        return mixed
    p.space.lock(x, reason)
    return None


def reduction(p: Propagation, node: onnx.NodeProto) -> None:
    """ReduceX, ArgMax, ArgMin."""
    x = p.get(node.input[0])
    if x is None:
        return
    attrs = p.attrs(node)
    rank = len(p.shape(node.input[0]))
    if node.op_type in ("ArgMax", "ArgMin"):
        axes = [int(attrs.get("axis", 0))]
    elif "axes" in attrs:
        axes = list(attrs["axes"])
    elif len(node.input) > 1 and node.input[1]:
        value = p.value(node.input[1])
        if value is None:
            raise MovementError("its axes are computed at run time")
        axes = [int(a) for a in value.reshape(-1)]
    else:
        axes = []
    if not axes:
        axes = [] if attrs.get("noop_with_empty_axes", 0) else list(range(rank))
    axes = [a % rank for a in axes]
    y = mix(p, node, x, axes)
    if y is None:
        return
    if not attrs.get("keepdims", 1):
        y = y.reshape([n for a, n in enumerate(y.shape) if a not in axes])
    p.put(node.output[0], y)


def normalised(p: Propagation, node: onnx.NodeProto) -> None:
    """Softmax and its kin, LpNormalization, CumSum: mixing along one axis, shape kept."""
    x = p.get(node.input[0])
    if x is None:
        return
    attrs = p.attrs(node)
    rank = len(p.shape(node.input[0]))
    if node.op_type == "CumSum":
        value = p.value(node.input[1])
        if value is None:
            raise MovementError("its axis is computed at run time")
        axes = [int(value.reshape(-1)[0]) % rank]
    elif node.op_type == "LpNormalization":
        axes = [int(attrs.get("axis", -1)) % rank]
    elif p.constants.opset.get("", 13) < 13:
        axes = list(range(int(attrs.get("axis", 1)) % rank, rank))
    else:
        axes = [int(attrs.get("axis", -1)) % rank]
    _same_shape(p, node, x, axes)


def top_k(p: Propagation, node: onnx.NodeProto) -> None:
    """TopK: positions along one axis are picked by value; what lies on the others passes."""
    x = p.get(node.input[0])
    for name in node.input[1:]:
        p.space.lock(p.get(name), f"steers {describe(node)}")
    if x is None:
        return
    axis = int(p.attrs(node).get("axis", -1)) % len(p.shape(node.input[0]))
    y = mix(p, node, x, [axis])
    if y is None:
        return
    for name in node.output:
        p.put(name, y)


def layer_norm(p: Propagation, node: onnx.NodeProto) -> None:
    """LayerNormalization, RMSNormalization: mixing over the trailing axes."""
    x = p.get(node.input[0])
    if x is None:
        return
    rank = len(p.shape(node.input[0]))
    axis = int(p.attrs(node).get("axis", -1)) % rank
    _same_shape(p, node, x, list(range(axis, rank)))


def local_response(p: Propagation, node: onnx.NodeProto) -> None:
    """LRN and MeanVarianceNormalization: neighbouring channels are mixed."""
    x = p.get(node.input[0])
    if x is None:
        return
    rank = len(p.shape(node.input[0]))
    axes = p.attrs(node).get("axes", [0, 2, 3]) if node.op_type != "LRN" else [1]
    _same_shape(p, node, x, [a % rank for a in axes])


def _same_shape(p: Propagation, node: onnx.NodeProto, x: Labels, axes: list[int]) -> None:
    y = mix(p, node, x, axes)
    if y is None:
        return
    # Tied, but each position keeps its label.
    p.put(node.output[0], np.array(np.broadcast_to(y, y.shape)))
