"""Names of nodes, for messages, plans and records."""

from __future__ import annotations

from collections import Counter

import onnx


def node_name(node: onnx.NodeProto) -> str:
    """The node's name, or its first output where it has none."""
    return node.name or (node.output[0] if node.output else "?")


def unique_names(model: onnx.ModelProto) -> list[str]:
    """A name for each node of the main graph: its own, or its first output where another has it."""
    names = [node_name(node) for node in model.graph.node]
    count = Counter(names)
    return [
        name if count[name] == 1 or not node.output else node.output[0]
        for name, node in zip(names, model.graph.node, strict=True)
    ]


def describe(node: onnx.NodeProto) -> str:
    """A name for messages: `Op 'name'`, or the first output where the node has no name."""
    return f"{node.op_type} {node_name(node)!r}"
