"""Label rules where values enter and leave the bodies of If, Loop and Scan (see `bodies`)."""

from __future__ import annotations

import math

import onnx

from onnx_esn.graph.bodies import ENTER, EXIT, MERGE, number, origin, place
from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.channels.propagation import Propagation
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.movement import compact
from onnx_esn.graph.node_names import describe

_LARGEST = 65536


def merge(p: Propagation, node: onnx.NodeProto) -> None:
    """The end of an If: both branches deliver the same channels."""
    p.space.lock(p.get(node.input[0]), f"steers {_name(node)}")
    count = len(node.output)
    pairs = zip(node.input[1 : 1 + count], node.input[1 + count :], node.output, strict=True)
    for one, other, out in pairs:
        p.put(out, _joined(p, node, one, other, "delivered by one branch only of"))


def _joined(p: Propagation, node: onnx.NodeProto, one: str, other: str, why: str) -> Labels | None:
    """Tie two tensors that stand for one; None where they cannot be, and then both are locked."""
    a, b = p.get(one), p.get(other)
    shapes = p.facts.shapes
    if a is None or b is None or one not in shapes or shapes[one] != shapes.get(other):
        for x in (a, b):
            p.space.lock(x, f"{why} {_name(node)}")
        return None
    p.space.tie(a, b, f"{why} {_name(node)}")
    return compact(a) if a.size >= b.size else compact(b)


def enter(p: Propagation, node: onnx.NodeProto) -> None:
    """The start of a Loop or Scan: carried values pass, Scan takes slices of the others."""
    control, carried = number(node, "control"), number(node, "carried")
    p.entered[place(node)] = p.space.count
    for k, (name, inner) in enumerate(zip(node.input, node.output, strict=True)):
        x = p.get(name) if name else None
        if x is None and control <= k < control + carried:
            x = _start(p, node, k)
        if x is None:
            continue
        if k < control:
            p.space.lock(x, f"steers {_name(node)}")
        elif k < control + carried:
            p.put(inner, x, f"carried by {_name(node)}")
        else:
            axis = _axis(node, "scan_input_axes", k - carried, x.ndim)
            if x.shape[axis] > 1:
                p.space.lock(x, f"taken apart by {_name(node)}")
            else:
                p.put(inner, x.squeeze(axis), f"taken apart by {_name(node)}")


def _start(p: Propagation, node: onnx.NodeProto, slot: int) -> Labels | None:
    """A stored value to start from: which of its axes holds channels is seen inside the body."""
    name = node.input[slot]
    shape = p.facts.shapes.get(name)
    if name not in p.constants or not shape or math.prod(shape) > _LARGEST:
        return None
    x = p.space.issue(math.prod(shape), p.index).reshape(shape)
    p.claim(node, slot, x, "param")
    return x


def leave(p: Propagation, node: onnx.NodeProto) -> None:
    """The end of a Loop or Scan: what is carried has the same channels before and after."""
    carried, conditions = number(node, "carried"), number(node, "conditions")
    before = node.input[:carried]
    after = node.input[carried + conditions : 2 * carried + conditions]
    shapes = p.facts.shapes
    if any(
        b not in shapes or shapes[b] != shapes.get(a) for b, a in zip(before, after, strict=True)
    ):
        # What was inferred inside holds for the first turn only.
        reason = f"in {_name(node)}, which carries a tensor whose shape changes"
        p.space.lock_range(p.entered[place(node)] + 1, reason)
        for name in (*before, *node.input):
            p.space.lock(p.get(name), reason)
        return
    for b, a, out in zip(before, after, node.output, strict=False):
        p.put(
            out, _joined(p, node, b, a, "carried without channels by"), f"carried by {_name(node)}"
        )
    collected = node.input[2 * carried + conditions :]
    for k, (name, out) in enumerate(zip(collected, node.output[carried:], strict=True)):
        x = p.get(name)
        if x is None:
            continue
        if out not in shapes:
            p.space.lock(x, f"collected by {_name(node)}")
            continue
        axis = _axis(node, "scan_output_axes", k, x.ndim + 1)
        shape = [*x.shape[:axis], 1, *x.shape[axis:]]
        p.put(out, x.reshape(shape), f"collected by {_name(node)}")


def _axis(node: onnx.NodeProto, name: str, index: int, rank: int) -> int:
    axes = attributes(origin(node)).get(name)
    return int(axes[index]) % rank if axes else 0


def _name(node: onnx.NodeProto) -> str:
    return describe(origin(node))


FLOW = {MERGE: merge, ENTER: enter, EXIT: leave}
