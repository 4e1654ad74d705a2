"""Layers inside bodies of If, Loop and Scan: no format reaches their weights, and says so."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from onnx_esn.graph.hoisting import subgraphs
from onnx_esn.graph.layers import OPERATORS
from onnx_esn.graph.node_names import describe


def inner_layers(model: onnx.ModelProto) -> list[str]:
    """A line for each node whose body holds layers: their weights stay as they are."""
    lines = []
    for node in model.graph.node:
        count = sum(_layers_inside(graph.node) for graph in subgraphs(node).values())
        if count:
            plural = "s" if count > 1 else ""
            lines.append(f"{describe(node)}: the {count} layer{plural} inside keep their floats")
    return lines


def _layers_inside(nodes: Iterable[onnx.NodeProto]) -> int:
    return sum(
        int(n.op_type in OPERATORS) + sum(_layers_inside(g.node) for g in subgraphs(n).values())
        for n in nodes
    )
