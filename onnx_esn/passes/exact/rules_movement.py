"""Numbers for operators that move data: what lands where keeps its number."""

from __future__ import annotations

import math

import numpy as np
import onnx

from onnx_esn.graph.channels.rules_movement import pad_amounts
from onnx_esn.graph.evaluate import attributes, evaluate_node
from onnx_esn.graph.movement import Move, MovementError, move
from onnx_esn.passes.exact.values import Ids
from onnx_esn.passes.exact.walk import Walk, attribute

_LARGEST = 1 << 24  # positions of a tensor whose movement is followed one by one


def movement(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Executed on every position: which of the input's lands where."""
    name = node.input[0]
    if node.op_type == "Identity":
        walk.put(node.output[0], walk.ids[name])
        return
    ids, shape = walk.ids[name], walk.shape(name)
    if math.prod(shape) > _LARGEST:
        raise MovementError("too large")
    rest = [n if ids.shape[a] == 1 else 1 for a, n in enumerate(shape)]
    size = math.prod(rest)
    places = np.arange(size).reshape(rest)
    constant = ~np.isnan(walk.values.constants(ids))
    x = np.where(constant, -1 - ids, ids * size + places)
    params = [walk.analysis.facts.values.get(i) if i else None for i in node.input]
    if node.op_type == "DepthToSpace":
        moved = evaluate_node(node, [np.broadcast_to(x, shape)], walk.opset)
    else:
        outs = [walk.shape(o) if o else () for o in node.output]
        moved = move(Move(node.op_type, attributes(node), params, shape, outs), x)
    for out, y in zip(node.output, moved, strict=False):
        if out in walk.analysis.propagation.labels:
            walk.put(out, _read_back(walk, out, y, size))


def _read_back(walk: Walk, out: str, y: Ids, size: int) -> Ids:
    """Numbers for the positions along the axes of `out` from what landed there."""
    axes = walk.axes(out)
    full = walk.shape(out)
    y = np.broadcast_to(y, [full[a] if a in axes else n for a, n in enumerate(y.shape)])
    rows = np.moveaxis(y, axes, range(len(axes)))
    sizes = rows.shape[: len(axes)]
    rows = rows.reshape(math.prod(sizes), -1)
    first = rows[:, 0]
    constant = (first < 0) & (rows == first[:, None]).all(axis=1)
    whole = np.zeros(len(rows), np.bool_)
    if rows.shape[1] == size:  # the same values in the same order keep their number
        whole = (first >= 0) & (first % size == 0)
        whole &= (rows == first[:, None] + np.arange(size)).all(axis=1)
    ids = np.where(constant, -1 - first, first // size)
    other = ~constant & ~whole
    if other.any():
        low, high = walk.values.ranges(np.where(rows < 0, -1 - rows, rows // size)[other])
        new = walk.keyed(("moved", size, rows.shape[1]), rows[other])
        ids[other] = walk.values.within(new, low.min(axis=1), high.max(axis=1))
    return walk._laid(ids, sizes, axes, y.ndim)


def concat(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Side by side along a channel axis; along another one, a function of all operands."""
    out = node.output[0]
    shape = walk.shape(out)
    axes, rank = walk.axes(out), len(shape)
    axis = int(attribute(node, "axis", 0)) % rank
    views = [walk.view(n, axes, rank) for n in node.input]
    if axis in axes:
        parts = []
        for v, name in zip(views, node.input, strict=True):
            sizes = [n if a in axes else 1 for a, n in enumerate(shape)]
            sizes[axis] = walk.shape(name)[axis]
            parts.append(np.broadcast_to(v, sizes))
        walk.put(out, np.concatenate(parts, axis))
        return
    sizes = [n if a in axes else 1 for a, n in enumerate(shape)]
    table = np.stack([np.broadcast_to(v, sizes).reshape(-1) for v in views], axis=1)
    rests = tuple(walk.rest(n, axes, rank) for n in node.input)
    walk.put(out, walk._rows(table, (walk.signature(node), rests)).reshape(sizes))


def pad(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Padding along the rest is a function of the channel; new channels hold what pads."""
    out, name = node.output[0], node.input[0]
    shape = walk.shape(name)
    axes, rank = walk.axes(out), len(shape)
    before, after = pad_amounts(walk.analysis.propagation, node, rank)
    mode = attribute(node, "mode", b"constant")
    value = float(attribute(node, "value", 0.0))
    if len(node.input) > 2 and node.input[2]:
        value = float(walk.analysis.constants.value(node.input[2]).reshape(-1)[0])
    ids = walk.view(name, [a for a in axes if shape[a] > 1], rank)
    rest = [(a, before[a], after[a]) for a in range(rank) if a not in axes]
    if any(b or c for _, b, c in rest):
        known = walk.values.constants(ids)
        keep = (known == value) if mode == b"constant" else ~np.isnan(known)
        head = (walk.signature(node), tuple(rest), value, walk.rest(name, axes, rank))
        new = walk.keyed(head, ids.reshape(-1, 1)).reshape(ids.shape)
        low, high = walk.values.ranges(ids)
        if mode == b"constant":
            low, high = np.minimum(low, value), np.maximum(high, value)
        ids = np.where(keep, ids, walk.values.within(new, low, high))
    for axis in axes:
        if before[axis] or after[axis]:
            if mode != b"constant" or min(before[axis], after[axis]) < 0:
                return
            made = walk.values.constant(value)
            sides = [
                np.full([n if a == axis else m for a, m in enumerate(ids.shape)], made)
                for n in (before[axis], after[axis])
            ]
            ids = np.concatenate([sides[0], ids, sides[1]], axis)
    walk.put(out, ids)


def filled(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """ConstantOfShape: one constant everywhere."""
    value = attribute(node, "value", None)
    number = 0.0 if value is None else float(onnx.numpy_helper.to_array(value).reshape(-1)[0])
    rank = len(walk.shape(node.output[0]))
    walk.put(node.output[0], np.full((1,) * rank, walk.values.constant(number)))


def expanded(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Expand, of a constant too."""
    if node.input[0] in walk.ids:
        movement(walk, index, node)
        return
    out = node.output[0]
    walk.put(out, walk.view(node.input[0], walk.axes(out), len(walk.shape(out))))
