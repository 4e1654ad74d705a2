"""Label rules of data movement: executed on the labels as it is."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.channels.propagation import Propagation, along
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.movement import Move, MovementError, compact, expand, move
from onnx_esn.graph.node_names import describe


def movement(p: Propagation, node: onnx.NodeProto) -> None:
    """Any operator of `movement.MOVES`."""
    for name in node.input[1:]:
        p.space.lock(p.get(name), f"steers {describe(node)}")
    x = p.get(node.input[0])
    if x is None:
        if node.op_type in ("Gather", "GatherND") and p.get(node.input[1]) is not None:
            p.barrier(node, "its indices are computed from channels")
        return
    m = Move(
        node.op_type,
        p.attrs(node),
        p.params(node),
        p.shape(node.input[0]),
        [p.shape(o) if o else () for o in node.output],
    )
    outputs = move(m, x)
    for name, y in zip(node.output, outputs, strict=False):
        p.put(name, y, f"left alone by {describe(node)}")


def depth_to_space(p: Propagation, node: onnx.NodeProto) -> None:
    """DepthToSpace: the channels that become one block of pixels stand or fall together."""
    x = p.get(node.input[0])
    if x is None:
        return
    shape = p.shape(node.input[0])
    attrs = p.attrs(node)
    made, block = p.shape(node.output[0])[1], int(attrs["blocksize"]) ** 2
    reason = f"laid out as pixels by {describe(node)}"
    vector = expand(p.space.tie_along(x, [0, 2, 3], reason), shape, [1])
    columns_first = attrs.get("mode", b"DCR") == b"DCR"
    rows = vector.reshape((block, made) if columns_first else (made, block))
    p.space.tie_along(rows, [0 if columns_first else 1], reason)
    if made == 1:
        p.space.lock(rows, reason)
    movement(p, node)


def concat(p: Propagation, node: onnx.NodeProto) -> None:
    """Concat: labels side by side. What carries none gets its own: a constant's may go.

    The others stay, but have to be told apart when the result is sliced again.
    """
    found = [p.get(name) for name in node.input]
    known = next((x for x in found if x is not None), None)
    if known is None:
        return
    out = p.shape(node.output[0])
    rank = len(out)
    axis = int(p.attrs(node)["axis"]) % rank
    labelled = any(x is not None and x.shape[axis] > 1 for x in found)
    parts: list[Labels] = []
    for slot, (name, x) in enumerate(zip(node.input, found, strict=True)):
        shape = p.shape(name)
        if x is None:
            x = _unlabelled(p, node, slot, axis, known, labelled)
        parts.append(expand(x, shape, [axis]))
    joint = [max(x.shape[a] for x in parts) for a in range(rank)]
    full = [
        np.broadcast_to(x, [n if a != axis else x.shape[axis] for a, n in enumerate(joint)])
        for x in parts
    ]
    p.put(node.output[0], compact(np.concatenate(full, axis)))


def _unlabelled(
    p: Propagation, node: onnx.NodeProto, slot: int, axis: int, known: Labels, labelled: bool
) -> Labels:
    """Labels for an operand of a Concat that has none, given those of another operand."""
    name = node.input[slot]
    shape = p.shape(name)
    rank = len(shape)
    if not labelled:
        # Stacked along another axis than the channels': it would lose the same ones.
        x = p.space.tie_along(known, [axis], f"stacked in {describe(node)}")
        if name in p.constants:
            p.claim(node, slot, x, "param")
            return x
        return x if p.fill(name, x) else np.zeros((1,) * rank, np.int64)
    x = along(p.space.issue(shape[axis], p.index), axis, rank)
    if shape[axis] > 1 and name in p.constants:
        p.claim(node, slot, x, "param")
    elif shape[axis] == 1 or not p.fill(name, x):
        why = f"joined in {describe(node)} from {name!r}, which carries no channels"
        p.space.lock(x, p.why_unlabelled(name) or why)
    return x


def pad_amounts(p: Propagation, node: onnx.NodeProto, rank: int) -> tuple[list[int], list[int]]:
    """Pads before and after each axis."""
    attrs = p.attrs(node)
    pads = attrs.get("pads", attrs.get("paddings"))
    if pads is None:
        value = p.value(node.input[1])
        if value is None:
            raise MovementError("its pads are computed at run time")
        pads = [int(v) for v in value.reshape(-1)]
    axes: list[int] = list(range(rank))
    if len(node.input) > 3 and node.input[3]:
        value = p.value(node.input[3])
        if value is None:
            raise MovementError("its axes are computed at run time")
        axes = [int(v) % rank for v in value.reshape(-1)]
    before, after = [0] * rank, [0] * rank
    for k, axis in enumerate(axes):
        before[axis], after[axis] = int(pads[k]), int(pads[len(axes) + k])
    return before, after


def pad(p: Propagation, node: onnx.NodeProto) -> None:
    """Pad: channels made of padding get labels of their own (option-A shortcuts)."""
    x = p.get(node.input[0])
    if x is None:
        return
    shape: Shape = p.shape(node.input[0])
    rank = len(shape)
    before, after = pad_amounts(p, node, rank)
    axes = [a for a in range(rank) if x.shape[a] > 1 and (before[a] or after[a])]
    if not axes:
        p.put(node.output[0], x)
        return
    mode = p.attrs(node).get("mode", b"constant")
    if mode != b"constant" or len(axes) > 1 or min(*before, *after) < 0:
        raise MovementError(f"it pads channels in mode {mode.decode()}")
    (axis,) = axes
    made = p.space.issue(before[axis] + after[axis], p.index)
    sides = [
        np.broadcast_to(
            along(side, axis, rank),
            [side.size if a == axis else n for a, n in enumerate(x.shape)],
        )
        for side in (made[: before[axis]], made[before[axis] :])
    ]
    p.put(node.output[0], np.concatenate([sides[0], x, sides[1]], axis))
