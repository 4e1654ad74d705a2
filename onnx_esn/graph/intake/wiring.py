"""Who makes what is read: no name twice, nothing from nowhere, no cycle.

onnx's checker finds these too. It speaks of the second name only, and not of the node.
"""

from __future__ import annotations

import onnx

from onnx_esn.errors import ModelError
from onnx_esn.graph.node_names import describe


def check_wiring(model: onnx.ModelProto, name: str) -> None:
    """Check the main graph; onnx's checker does the bodies.

    Raises:
        ModelError: a value made or stored twice, read but never made, or read too early.
    """
    graph = model.graph
    _check_once([t.name for t in graph.initializer], "initializer", name)
    _check_once([i.name for i in graph.input], "input", name)
    known = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    known.update(s.values.name for s in graph.sparse_initializer)
    maker: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        for output in filter(None, node.output):
            if output in known or output in maker:
                other = describe(maker[output]) if output in maker else "an input or initializer"
                raise ModelError(
                    f"{name}: {output!r} is made twice, by {describe(node)} and by {other}; "
                    "export the model again"
                )
            maker[output] = node
    made = set(known)
    for node in graph.node:
        for read in node.input:
            if read and read not in made:
                raise ModelError(f"{name}: {_unmade(model, node, read, maker)}")
        made.update(node.output)
    for output in graph.output:
        if output.name not in made:
            raise ModelError(f"{name}: nobody makes the output {output.name!r} of the graph")


def _check_once(names: list[str], what: str, name: str) -> None:
    seen: set[str] = set()
    for entry in names:
        if entry in seen:
            raise ModelError(f"{name}: the {what} {entry!r} is there twice; export the model again")
        seen.add(entry)


def _unmade(
    model: onnx.ModelProto, node: onnx.NodeProto, read: str, maker: dict[str, onnx.NodeProto]
) -> str:
    if read not in maker:
        return (
            f"{describe(node)} reads {read!r}, which nobody makes: no node, input or initializer; "
            "the file is incomplete: export the model again"
        )
    if read in node.output:
        return f"{describe(node)} reads itself, its own output {read!r}: a cycle"
    if _reaches(maker[read], set(node.output), maker):
        return (
            f"{describe(node)} reads {read!r}, which {describe(maker[read])} makes of what "
            f"{describe(node)} makes: a cycle, which no runtime can run"
        )
    return (
        f"{describe(node)} reads {read!r} before it is made, by {describe(maker[read])}; "
        "sort the nodes (onnx-graphsurgeon: graph.toposort())"
    )


def _reaches(start: onnx.NodeProto, names: set[str], maker: dict[str, onnx.NodeProto]) -> bool:
    """Whether what a node reads depends on any of the names."""
    waiting, seen = list(start.input), set[str]()
    while waiting:
        read = waiting.pop()
        if read in names:
            return True
        if read in seen or read not in maker:
            continue
        seen.add(read)
        waiting += maker[read].input
    return False
