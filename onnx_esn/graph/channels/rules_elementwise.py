"""Label rules of elementwise and per-channel operators: labels that meet are tied, parameters that
lie along a labelled axis are claimed."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.channels.propagation import Propagation, align, along, others
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.movement import MovementError, compact, expand
from onnx_esn.graph.node_names import describe


def elementwise(p: Propagation, node: onnx.NodeProto) -> None:
    """Any number of broadcast operands; those that carry labels are tied position by position."""
    if "broadcast" in p.attrs(node):
        raise MovementError("it broadcasts as operators did before opset 7")
    out = node.output[0]
    shape = p.shape(out)
    rank = len(shape)
    result: Labels | None = None
    lost: list[str] = []
    for name in node.input:
        x = p.get(name) if name else None
        if x is None:
            continue
        x = align(x, rank)
        if result is None:
            result = x
        elif crossed(result, x):
            # Channels meet filters that mix positions: one of them stays, or all were one class.
            if x.size > result.size:
                x, result = result, x
                lost = [n for n in node.input if n and n != name]
            else:
                lost.append(name)
            p.space.lock(x, f"laid across other channels in {describe(node)}")
        else:
            p.space.tie(result, x, f"combined in {describe(node)} with a channel without a label")
            result = compact(joined(result, x))
    if result is None:
        return
    for slot, name in enumerate(node.input):
        if name and (p.get(name) is None or name in lost):
            meet(p, node, slot, result)
    p.put(out, result)


def joined(a: Labels, b: Labels) -> Labels:
    """One array for two that were tied: along an axis where either is one class, both are."""
    if a.all() and b.all():
        thin = [axis for axis in range(a.ndim) if 1 in (a.shape[axis], b.shape[axis])]
        a, b = (_first_along(x, thin) for x in (a, b))
    return np.array(np.broadcast_arrays(a, b)[0])


def _first_along(x: Labels, axes: list[int]) -> Labels:
    return x[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))]


def crossed(a: Labels, b: Labels) -> bool:
    """Whether two arrays of labels vary along different axes only."""
    return (
        a.size > 1 and b.size > 1 and all(1 in pair for pair in zip(a.shape, b.shape, strict=True))
    )


def meet(p: Propagation, node: onnx.NodeProto, slot: int, labels: Labels) -> None:
    """An operand without labels meets `labels` (compact, rank of the output)."""
    name = node.input[slot]
    shape = p.shape(name)
    rank = labels.ndim
    full: Shape = (1,) * (rank - len(shape)) + shape
    axes = [a for a in range(rank) if labels.shape[a] > 1 and full[a] > 1]
    if not axes:
        return
    if name not in p.constants:
        if full == p.shape(node.output[0]) and len(shape) == rank and p.fill(name, labels):
            return
        why = f"combined in {describe(node)} with {name!r}, which carries no channels"
        p.space.lock(labels, p.why_unlabelled(name) or why)
        return
    flat = [a for a in range(rank) if labels.shape[a] > 1 and full[a] == 1]
    labels = p.space.tie_along(labels, flat, f"combined in {describe(node)}")
    p.claim(node, slot, labels.reshape(labels.shape[rank - len(shape) :]), "param")


def meet_parameter(
    p: Propagation,
    node: onnx.NodeProto,
    slot: int,
    vector: Labels,
    axis: int,
    rank: int,
    reason: str,
) -> None:
    """A parameter (or a computed operand) in `slot` lies along `axis` of a rank-`rank` result."""
    name = node.input[slot]
    x = p.get(name)
    labels = along(vector, axis, rank)
    if x is not None:
        p.space.tie(align(x, rank), labels, reason)
        return
    shape = p.shape(name)
    full = (1,) * (rank - len(shape)) + shape
    if full[axis] == 1:
        return
    if name not in p.constants:
        p.space.lock(vector, f"{reason} is computed at run time")
        return
    p.claim(node, slot, labels.reshape(labels.shape[rank - len(shape) :]), "param")


def per_channel(p: Propagation, node: onnx.NodeProto) -> None:
    """BatchNormalization, InstanceNormalization: parameters (C,) for the channels on axis 1."""
    x = p.get(node.input[0])
    if x is None:
        return
    if not p.attrs(node).get("spatial", 1):
        raise MovementError("it normalises each position by itself")
    shape = p.shape(node.input[0])
    x = p.space.tie_along(x, others(len(shape), 1), f"normalised in {describe(node)}")
    if x.size == 1:
        p.space.lock(x, f"normalised as a whole in {describe(node)}")
        return
    vector = x.reshape(-1)
    for slot in range(1, len(node.input)):
        meet_parameter(p, node, slot, vector, 0, 1, f"parameter of {describe(node)}")
    p.put(node.output[0], x)
    for name in node.output[1:]:  # statistics, in training mode
        p.put(name, vector)


def group_norm(p: Propagation, node: onnx.NodeProto) -> None:
    """GroupNormalization: whole groups go, or nothing."""
    x = p.get(node.input[0])
    if x is None:
        return
    shape = p.shape(node.input[0])
    groups = int(p.attrs(node)["num_groups"])
    reason = f"normalised together in {describe(node)}"
    x = p.space.tie_along(x, others(len(shape), 1), reason)
    rows = expand(x, shape, [1]).reshape(groups, -1)
    p.space.tie(rows, rows[:, :1], reason)
    if groups == 1:
        p.space.lock(rows, reason)
    for slot in (1, 2):
        size = p.shape(node.input[slot])[0]
        vector = rows.reshape(-1) if size == shape[1] else rows[:, 0]
        meet_parameter(p, node, slot, vector, 0, 1, f"parameter of {describe(node)}")
    p.groups[p.index] = np.array(rows[:, 0])
    p.put(node.output[0], along(rows.reshape(-1), 1, len(shape)))


def quantize_linear(p: Propagation, node: onnx.NodeProto) -> None:
    """QuantizeLinear, DequantizeLinear on activations: per tensor or per axis."""
    x = p.get(node.input[0])
    if x is None:
        return
    rank = len(p.shape(node.input[0]))
    axis = int(p.attrs(node).get("axis", 1)) % rank
    for slot in range(1, len(node.input)):
        name = node.input[slot]
        size = p.shape(name) if name else ()
        if not name or size == () or size == (1,):
            continue
        if len(size) != 1:
            p.barrier(node, "its scales are blocked")
            return
        if x.shape[axis] > 1:
            y = p.space.tie_along(x, others(rank, axis), f"scaled in {describe(node)}")
            meet_parameter(p, node, slot, y.reshape(-1), 0, 1, f"scale of {describe(node)}")
    p.put(node.output[0], x)
