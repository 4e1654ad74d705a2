"""What lost its last reader: nodes and stored tensors that a change of the graph left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

import onnx

from onnx_esn.graph.hoisting import captured


def reads(model: onnx.ModelProto) -> Counter[str]:
    """How often each tensor is read."""
    used = Counter(o.name for o in model.graph.output)
    for node in model.graph.node:
        used.update(_node_reads(node))
    return used


def left_behind(
    model: onnx.ModelProto, before: Container[str], used: Counter[str]
) -> tuple[set[int], set[str]]:
    """Nodes (their indices) and tensors that had readers, of which none is left.

    Args:
        model: the model.
        before: what was read before the change; what had no reader then stays.
        used: how often each tensor is read now; without the reads of such nodes on return.
    """
    nodes: set[int] = set()
    changed = True
    while changed:
        changed = False
        for i in reversed(range(len(model.graph.node))):
            node = model.graph.node[i]
            if (
                i not in nodes
                and any(o in before for o in node.output)
                and not any(used[o] for o in node.output)
            ):
                nodes.add(i)
                used.subtract(_node_reads(node))
                changed = True
    stored = (t.name for t in model.graph.initializer)  # an input proper is fed all the same
    return nodes, {name for name in stored if name in before and not used[name]}


def drop_unread(model: onnx.ModelProto, before: Container[str]) -> None:
    """Remove what had readers, and has none any more."""
    drop(model, *left_behind(model, before, reads(model)))


def drop(model: onnx.ModelProto, nodes: set[int], tensors: set[str]) -> None:
    """Remove nodes by index, and by name stored tensors (which may be inputs as well)."""
    for i in sorted(nodes, reverse=True):
        del model.graph.node[i]  # one by one: a list that is written anew takes its memory twice
    for entries in (model.graph.initializer, model.graph.input):
        for i in reversed(range(len(entries))):
            if entries[i].name in tensors:
                del entries[i]


def _node_reads(node: onnx.NodeProto) -> list[str]:
    return [*(i for i in node.input if i), *captured(node)]
