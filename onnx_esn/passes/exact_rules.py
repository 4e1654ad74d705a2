"""What operators do to the numbers of `exact_walk`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph import rules
from onnx_esn.graph.evaluate import attributes, evaluate_node
from onnx_esn.graph.movement import MOVES, Move, MovementError, move
from onnx_esn.graph.number_formats import EPSILON
from onnx_esn.graph.propagation import along
from onnx_esn.graph.rules_movement import pad_amounts
from onnx_esn.passes.exact_layers import layer
from onnx_esn.passes.exact_ranges import combined, rises, scaled
from onnx_esn.passes.exact_values import Floats, Ids
from onnx_esn.passes.exact_walk import Rule, Walk, attribute, run_node, typed

_LARGEST = 1 << 24  # positions of a tensor whose movement is followed one by one


def elementwise(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Any operator that works position by position on broadcast operands."""
    out = node.output[0]
    axes, rank = walk.axes(out), len(walk.shape(out))
    names = [n for n in node.input if n]
    views = [walk.view(n, axes, rank) for n in names]
    sizes = [n if a in axes else 1 for a, n in enumerate(walk.shape(out))]
    table = np.stack([np.broadcast_to(v, sizes).reshape(-1) for v in views], axis=1)
    rests = tuple(walk.rest(n, axes, rank) for n in names)
    slots = tuple(bool(n) for n in node.input)
    kind = walk.analysis.facts.types.get(out)
    ids = walk.keyed((walk.signature(node), rests, slots, kind), table)
    known = walk.values.constants(table)
    if node.op_type == "Mul":
        nothing = (known == 0).any(axis=1)
        ids[nothing] = walk.values.constant(0.0)
    still = ~np.isnan(known).any(axis=1)
    if still.any():
        ids[still] = _evaluated(walk, node, known[still])
    ids[~still] = _bounded(walk, node, ids, table)[~still]
    walk.put(out, ids.reshape(sizes))


def _bounded(walk: Walk, node: onnx.NodeProto, ids: Ids, table: Ids) -> Ids:
    """Numbers (P,) with their ranges, from those of the operands (P, operands)."""
    kinds = walk.analysis.facts.types
    names = [n for n in (*node.input, node.output[0]) if n]
    if any(kinds.get(n) not in EPSILON for n in names):
        return ids
    low, high = walk.values.ranges(table)
    rising = rises(node) or node.op_type == "Cast"
    if node.op_type == "PRelu":
        rising = (
            bool((low[:, 1] >= 0).all()) and not np.isnan(walk.values.constants(table[:, 1])).any()
        )
    if rising:
        return walk.values.within(ids, _run(walk, node, low), _run(walk, node, high))
    found = combined(node.op_type, list(zip(low.T, high.T, strict=True)))
    return ids if found is None else walk.values.within(ids, *found)


def _evaluated(walk: Walk, node: onnx.NodeProto, known: Floats) -> Ids:
    """Numbers of constants (P,): the node run on constant operands (P, operands)."""
    return walk.constant_ids(_run(walk, node, known))


def _run(walk: Walk, node: onnx.NodeProto, operands: Floats) -> Floats:
    """The node run on values (P, operands) of its operands."""
    inputs: list[NDArray[Any] | None] = []
    column = 0
    for name in node.input:
        if not name:
            inputs.append(None)
            continue
        kind = walk.analysis.facts.types[name]
        x = typed(operands[:, column], kind)
        if name in walk.analysis.constants and math.prod(walk.shape(name)) == 1:
            x = x[0].reshape(())  # bounds of Clip, for one, are scalars
        inputs.append(x)
        column += 1
    return np.broadcast_to(run_node(walk, node, inputs), len(operands))


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


def dropout(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Nothing happens, except in training."""
    if len(node.input) > 2 and node.input[2]:
        value = walk.analysis.facts.values.get(node.input[2])
        if value is None or value.any():
            return
    walk.put(node.output[0], walk.ids[node.input[0]])


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


def spatial(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Pooling, resizing, sampling: a function of each channel."""
    out, name = node.output[0], node.input[0]
    rank = len(walk.shape(out))
    ids = walk.view(name, [1], len(walk.shape(name))).reshape(-1)
    known = walk.values.constants(ids)
    keep = ~np.isnan(known) if _keeps_constants(node) else known == 0
    if node.op_type in ("Resize", "Upsample") and _outside(node) != 0.0:
        keep &= False
    new = _function(walk, node, ids)
    cubic = attribute(node, "mode", b"") == b"cubic"
    if (_keeps_constants(node) or node.op_type == "AveragePool") and not cubic:
        low, high = walk.values.ranges(ids)
        if not _keeps_constants(node):  # it counts the zeros of its padding
            low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        new = walk.values.within(new, low, high)
    walk.put(out, along(np.where(keep, ids, new), 1, rank))


def _function(walk: Walk, node: onnx.NodeProto, ids: Ids) -> Ids:
    """Numbers of a function, of one channel each, that also depends on the other inputs."""
    shapes = walk.rest(node.input[0], [1], len(walk.shape(node.input[0])))
    out = node.output[0]
    head = (walk.signature(node), shapes, walk.rest(out, [1], len(walk.shape(out))))
    return walk.keyed((head, tuple(node.input[1:])), ids.reshape(-1, 1))


def _keeps_constants(node: onnx.NodeProto) -> bool:
    """Whether a constant channel comes out as it went in."""
    attrs = attributes(node)
    if node.op_type in ("GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Upsample"):
        return True
    if node.op_type == "Resize":
        return attrs.get("coordinate_transformation_mode") != b"tf_crop_and_resize"
    if node.op_type == "AveragePool":
        padded = any(attrs.get("pads", ())) or attrs.get("ceil_mode", 0)
        padded = padded or attrs.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER")
        return not (attrs.get("count_include_pad", 0) and padded)
    return False


def _outside(node: onnx.NodeProto) -> float:
    """What a Resize puts where it reads outside of its input."""
    attrs = attributes(node)
    cropped = attrs.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    return float(attrs.get("extrapolation_value", 0.0)) if cropped else 0.0


_OF_CONSTANT = ("ReduceMean", "ReduceMax", "ReduceMin")
_OF_ZERO = ("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare")


def reduction(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """A function of all that is reduced."""
    name, out = node.input[0], node.output[0]
    attrs = attributes(node)
    shape = walk.shape(name)
    rank = len(shape)
    axes = attrs.get("axes")
    if node.op_type in ("ArgMax", "ArgMin"):
        axes = [attrs.get("axis", 0)]
    elif len(node.input) > 1 and node.input[1]:
        axes = walk.analysis.facts.values[node.input[1]].reshape(-1)
    if axes is None or len(axes) == 0:
        axes = [] if attrs.get("noop_with_empty_axes", 0) else list(range(rank))
    reduced = sorted({int(a) % rank for a in axes})
    ids = walk.ids[name]
    kept = [a for a, n in enumerate(ids.shape) if n > 1 and a not in reduced]
    ids = walk.project(ids, shape, kept)
    known = walk.values.constants(ids)
    keep = (~np.isnan(known) & (node.op_type in _OF_CONSTANT)) | (
        (known == 0) & (node.op_type in _OF_ZERO)
    )
    head = (walk.signature(node), tuple(reduced), walk.rest(name, kept, rank))
    new = walk.keyed(head, ids.reshape(-1, 1)).reshape(ids.shape)
    if node.op_type in _OF_CONSTANT:
        new = walk.values.within(new, *walk.values.ranges(ids))
    ids = np.where(keep, ids, new)
    if not attrs.get("keepdims", 1):
        ids = ids.reshape([n for a, n in enumerate(ids.shape) if a not in reduced])
    walk.put(out, ids)


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
