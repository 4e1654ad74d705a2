"""All graphs, nodes and tensors of a model, without recursion: a hostile one nests without end."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

Place = tuple[onnx.GraphProto, int]


def all_graphs(model: onnx.ModelProto) -> Iterator[Place]:
    """Every graph with its depth: the main one 0, a body of a node in it 1, and so on."""
    waiting: list[Place] = [(model.graph, 0)]
    for function in model.functions:
        waiting += [(body, 1) for node in function.node for body in bodies(node)]
    while waiting:
        graph, depth = waiting.pop()
        yield graph, depth
        waiting += [(body, depth + 1) for node in graph.node for body in bodies(node)]


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node carries."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, of bodies and functions too."""
    for graph, _ in all_graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor: initializers, attributes, the parts of sparse ones."""
    for graph, _ in all_graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in all_sparse_of(attribute):
                yield from (sparse.values, sparse.indices)


def all_sparse(model: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    """Every sparse tensor."""
    for graph, _ in all_graphs(model):
        yield from graph.sparse_initializer
    for node in all_nodes(model):
        for attribute in node.attribute:
            yield from all_sparse_of(attribute)


def all_sparse_of(attribute: onnx.AttributeProto) -> Iterator[onnx.SparseTensorProto]:
    """The sparse tensors of an attribute."""
    if attribute.HasField("sparse_tensor"):
        yield attribute.sparse_tensor
    yield from attribute.sparse_tensors
