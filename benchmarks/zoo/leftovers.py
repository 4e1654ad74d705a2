"""Weights that a pruned file carries although nothing reads them any more."""

from __future__ import annotations

import onnx


def leftovers(model: onnx.ModelProto, pruned: onnx.ModelProto) -> int:
    """Bytes of stored tensors that no output depends on, unless it was so before."""
    before = _idle(model)
    return sum(size for name, size in _idle(pruned).items() if name not in before)


def _idle(model: onnx.ModelProto) -> dict[str, int]:
    """Stored tensors from which no way leads to a graph output, with their size."""
    reached = {o.name for o in model.graph.output}
    for node in reversed(model.graph.node):
        if reached.intersection(node.output):
            reached.update(_read_by(node))
    stored = {t.name: t.ByteSize() for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            stored[node.output[0]] = node.ByteSize()
    return {name: size for name, size in stored.items() if name not in reached}


def _read_by(node: onnx.NodeProto) -> set[str]:
    """What a node reads, in its bodies too (whose own tensors are among it)."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names.update(o.name for o in graph.output)
            for inner in graph.node:
                names |= _read_by(inner)
    return names
