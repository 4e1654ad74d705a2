"""Label rules of operators that pick or write positions by index, element by element."""

from __future__ import annotations

import onnx

from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.channels.propagation import Propagation
from onnx_esn.graph.movement import MovementError
from onnx_esn.graph.node_names import describe


def gather_elements(p: Propagation, node: onnx.NodeProto) -> None:
    """GatherElements: picks along one axis; the others must be channels of the indices too."""
    _along(p, node, data=[0], follow=[1])


def scatter_elements(p: Propagation, node: onnx.NodeProto) -> None:
    """ScatterElements: writes along one axis; data, updates and indices share the others."""
    _along(p, node, data=[0, 2], follow=[1])


def _along(p: Propagation, node: onnx.NodeProto, data: list[int], follow: list[int]) -> None:
    for slot in follow:
        p.space.lock(p.get(node.input[slot]), f"steers {describe(node)}")
    found = [x for x in (p.get(node.input[slot]) for slot in data) if x is not None]
    if not found:
        return
    x = found[0]
    axis = int(p.attrs(node).get("axis", 0)) % x.ndim
    reason = f"combined in {describe(node)} with a channel without a label"
    for other in found[1:]:
        p.space.tie(x, other, reason)
    if any(y.shape[axis] > 1 for y in found):
        raise MovementError("it picks from its channels")
    for slot in (*data, *follow):
        if p.get(node.input[slot]) is None:
            _follow(p, node, slot, x)
    p.put(node.output[0], x)


def _follow(p: Propagation, node: onnx.NodeProto, slot: int, labels: Labels) -> None:
    """An operand without labels has the same channels: stored, or the same for all of them."""
    name = node.input[slot]
    shape = p.shape(name)
    for axis, n in enumerate(labels.shape):
        if n > 1 and shape[axis] != n:
            raise MovementError("it picks some of its channels")
    if name in p.constants:
        p.claim(node, slot, labels, "param")
    elif not p.fill(name, labels):
        p.space.lock(
            labels, f"combined in {describe(node)} with {name!r}, which carries no channels"
        )
