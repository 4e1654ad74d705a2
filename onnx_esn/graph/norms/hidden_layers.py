"""Layers that a look at the main graph does not find: in subgraphs and local functions."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from onnx_esn.graph.layers import OPERATORS
from onnx_esn.graph.node_names import node_name


def find_hidden_layers(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """(name, where it is) of layers and BatchNormalization that passes leave as they are."""
    found = []
    called = {(node.domain, node.op_type) for node in model.graph.node}
    for function in model.functions:
        if (function.domain, function.name) in called:
            found += [(n, "it is inside a local function") for n in _inside(function.node)]
    for node in model.graph.node:
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                where = f"it is inside the subgraph of {node.op_type} {node_name(node)!r}"
                found += [(name, where) for name in _inside(graph.node)]
    return found


def _inside(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    kinds = (*OPERATORS, "BatchNormalization")
    return [node_name(n) for n in nodes if n.op_type in kinds]
