"""Nodes that one model lacks, and nodes that differ."""

from __future__ import annotations

from typing import Any

import onnx

from .changes import NodeChange
from .pairing import Pairing
from .wiring import Wiring

Sides = tuple[str | None, str | None]


def node_changes(a: Wiring, b: Wiring, pairing: Pairing) -> tuple[NodeChange, ...]:
    """What is gone, what differs or has another name, and what is new, each in graph order."""
    result = []
    for i, node in enumerate(a.nodes):
        j = pairing.nodes.get(i)
        if j is None:
            result.append(NodeChange((a.names[i], None), (_op(node), None)))
            continue
        inputs = _inputs(a, i, b, j, pairing)
        change = NodeChange(
            (a.names[i], b.names[j]),
            (_op(node), _op(b.nodes[j])),
            _attributes(a, i, b, j),
            inputs,
            tuple(slot for slot, (x, y) in inputs.items() if _passed(a, x, b, y, pairing)),
        )
        if change.differs or inputs or a.names[i] != b.names[j]:
            result.append(change)
    paired = set(pairing.nodes.values())
    for j, node in enumerate(b.nodes):
        if j not in paired:
            result.append(NodeChange((None, b.names[j]), (None, _op(node))))
    return tuple(result)


def _op(node: onnx.NodeProto) -> str:
    own = node.domain in ("", "ai.onnx")
    return str(node.op_type) if own else f"{node.domain}.{node.op_type}"


def _attributes(a: Wiring, i: int, b: Wiring, j: int) -> dict[str, tuple[Any, Any]]:
    if _op(a.nodes[i]) != _op(b.nodes[j]):
        return {}
    outputs = a.nodes[i].output[:1], b.nodes[j].output[:1]
    if a.nodes[i].op_type == "Constant" and all(
        wiring.value(name) is not None
        for wiring, names in zip((a, b), outputs, strict=True)
        for name in names
    ):
        return {}  # a stored tensor, compared as one
    first, second = a.settings(i), b.settings(j)
    if first.get("kernel_shape") is None or second.get("kernel_shape") is None:
        # May be left out where the weight has it.
        first.pop("kernel_shape", None)
        second.pop("kernel_shape", None)
    return {
        name: (first.get(name), second.get(name))
        for name in sorted({*first, *second})
        if first.get(name) != second.get(name)
    }


def _inputs(a: Wiring, i: int, b: Wiring, j: int, pairing: Pairing) -> dict[int, Sides]:
    first, second = list(a.nodes[i].input), list(b.nodes[j].input)
    length = max(len(first), len(second))
    first += [""] * (length - len(first))
    second += [""] * (length - len(second))
    return {
        slot: (x or None, y or None)
        for slot, (x, y) in enumerate(zip(first, second, strict=True))
        if not _same(a, x, b, y, pairing)
    }


def _passed(a: Wiring, x: str | None, b: Wiring, y: str | None, pairing: Pairing) -> bool:
    """Whether two inputs belong together but for nodes on the way that only pass them on."""
    if not x or not y:
        return False
    if x in a.constants and y in b.constants:
        return True
    return pairing.roots.get(a.root(x)) == b.root(y)


def _same(a: Wiring, x: str, b: Wiring, y: str, pairing: Pairing) -> bool:
    """Whether two inputs read what belongs together; of constants, whether both are stored."""
    if not x or not y:
        return x == y
    if x in pairing.tensors:
        return pairing.tensors[x] == y
    if x == y and _passed(a, x, b, y, pairing):
        return True  # what made it has passed its name on
    if x in a.constants and y in b.constants:
        # How a constant comes about is compared where its nodes and tensors are.
        return (x in a.made) == (y in b.made) or x == y
    # What a body captures, or a node without a pair makes, has its name only.
    return x == y and x not in a.made
