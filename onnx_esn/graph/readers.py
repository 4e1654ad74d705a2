"""Who reads each tensor of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable

import onnx

from onnx_esn.graph.hoisting import captured

Places = dict[str, list[tuple[int, int]]]


def read_places(model: onnx.ModelProto) -> Places:
    """By tensor, where it is read: (index of the node, input slot).

    The slot is −1 for what a node's subgraphs capture; a graph output is (−1, its position).
    """
    places: Places = defaultdict(list)
    for i, node in enumerate(model.graph.node):
        for slot, name in enumerate(node.input):
            if name:
                places[name].append((i, slot))
        for name in set(captured(node)):
            places[name].append((i, -1))
    for i, output in enumerate(model.graph.output):
        places[output.name].append((-1, i))
    return places


def count_users(model: onnx.ModelProto, places: Places, tensor: str) -> int:
    """How many inputs and graph outputs read a tensor, directly or through Identity nodes."""
    users = 0
    for index, slot in places.get(tensor, ()):
        if index >= 0 and slot >= 0 and model.graph.node[index].op_type == "Identity":
            users += count_users(model, places, model.graph.node[index].output[0])
        else:
            users += 1
    return users


def readers(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Indices of the nodes that read each tensor, subgraph captures included; −1: graph output."""
    return {name: [index for index, _ in found] for name, found in read_places(model).items()}


def reads(node: onnx.NodeProto, tensor: str) -> bool:
    """Whether a node reads a tensor, or a subgraph of it does."""
    return reads_any(node, (tensor,))


def reads_any(node: onnx.NodeProto, tensors: Container[str]) -> bool:
    """Whether a node, or a subgraph of it, reads one of these."""
    return any(name in tensors for name in (*node.input, *captured(node)))


def downstream(
    nodes: Iterable[onnx.NodeProto], tensors: Iterable[str], *, not_by: Container[str] = ()
) -> set[str]:
    """These tensors, and all that is made of them.

    Args:
        nodes: in order.
        tensors: where to begin.
        not_by: operators behind which nothing counts.
    """
    found = set(tensors)
    for node in nodes:
        if node.op_type not in not_by and reads_any(node, found):
            found.update(name for name in node.output if name)
    return found
