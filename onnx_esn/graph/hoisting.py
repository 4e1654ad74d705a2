"""Move the nodes of a subgraph into the graph around it, under names that are free there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

Rename = Mapping[str, str]


class Names:
    """The tensor names in use anywhere in a model; hands out free ones."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.used = {v.name for v in (*graph.input, *graph.output)}
        self.used.update(t.name for t in graph.initializer)
        self.used.update(name for node in graph.node for name in (*node.input, *node.output))

    def reserve(self, node: onnx.NodeProto) -> None:
        """Take the names inside the subgraphs of a node that stays as it is."""
        for graph in subgraphs(node).values():
            self.used |= Names(graph).used
            for inner in graph.node:
                self.reserve(inner)

    def fresh(self, name: str) -> str:
        """`name` itself where it is free, otherwise with underscores after it."""
        while name in self.used:
            name += "_"
        self.used.add(name)
        return name


def subgraphs(node: onnx.NodeProto) -> dict[str, onnx.GraphProto]:
    """The graphs that a node carries, by attribute name."""
    return {a.name: a.g for a in node.attribute if a.HasField("g")}


def captured(node: onnx.NodeProto) -> list[str]:
    """Names that the node's subgraphs read, their own tensors included (those carry no labels)."""
    names: list[str] = []
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            for inner in graph.node:
                names += [i for i in inner.input if i]
                names += captured(inner)
            names += [o.name for o in graph.output]
    return names


def hoisted(
    graph: onnx.GraphProto, names: Names, rename: Rename
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], dict[str, str]]:
    """Copies of a subgraph's nodes and stored tensors, renamed where the names are taken.

    Args:
        graph: the subgraph.
        names: names that are taken outside; those that are given out are added.
        rename: what the subgraph's inputs are called outside.

    Returns:
        The nodes, the stored tensors, and what each name of the subgraph became.
    """
    mapping = dict(rename)
    for tensor in graph.initializer:
        mapping[tensor.name] = names.fresh(tensor.name)
    for node in graph.node:
        mapping.update({o: names.fresh(o) for o in node.output if o})
    nodes = [renamed(node, mapping.get) for node in graph.node]
    tensors = []
    for tensor in graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = mapping[tensor.name]
        tensors.append(copy)
    return nodes, tensors, mapping


def renamed(node: onnx.NodeProto, of: Callable[[str, str], str]) -> onnx.NodeProto:
    """A copy of a node that reads and makes tensors of other names, in its subgraphs too."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for names in (copy.input, copy.output):
        names[:] = [of(n, n) for n in names]
    for graph in subgraphs(copy).values():
        own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
        own |= {o for inner in graph.node for o in inner.output}

        def outer(name: str, default: str, own: set[str] = own) -> str:
            return default if name in own else of(name, default)

        nodes = [renamed(inner, outer) for inner in graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        for output in graph.output:
            output.name = outer(output.name, output.name)
    return copy
