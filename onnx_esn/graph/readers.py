"""Who reads each tensor of a model."""

from __future__ import annotations

from collections import defaultdict

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
    return tensor in node.input or tensor in set(captured(node))
