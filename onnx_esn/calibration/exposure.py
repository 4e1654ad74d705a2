"""Cut a model down to what some of its tensors need, and make those tensors its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

from onnx_esn.errors import ModelError


def expose(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """A new model whose outputs are ``outputs``, in that order; the inputs stay as they are.

    Any tensor of the main graph may be named. Nodes and weights that no output needs are left
    out, so that asking for an early layer does not pay for the whole network.

    Raises:
        ModelError: a name that is not a tensor of the main graph.
    """
    graph = model.graph
    made = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    stored = {tensor.name for tensor in graph.initializer}
    stored.update(tensor.values.name for tensor in graph.sparse_initializer)
    fed = {value.name for value in graph.input}
    for name in outputs:
        if name not in made and name not in stored and name not in fed:
            raise ModelError(f"the model has no tensor named '{name}' in its main graph")

    needed = set(outputs)
    nodes: set[int] = set()
    pending = list(needed)
    while pending:
        index = made.get(pending.pop())
        if index is None or index in nodes:
            continue
        nodes.add(index)
        new = set(_uses(graph.node[index])) - needed
        needed |= new
        pending.extend(new)

    cut = onnx.ModelProto(ir_version=model.ir_version)
    cut.opset_import.extend(model.opset_import)
    cut.functions.extend(model.functions)
    cut.graph.name = graph.name
    cut.graph.node.extend(graph.node[index] for index in sorted(nodes))
    cut.graph.initializer.extend(t for t in graph.initializer if t.name in needed)
    cut.graph.sparse_initializer.extend(
        t for t in graph.sparse_initializer if t.values.name in needed
    )
    # An IR 3 model lists weights as inputs; one whose weight is gone would have to be fed.
    cut.graph.input.extend(v for v in graph.input if v.name not in stored or v.name in needed)
    declared = {value.name: value for value in graph.output}
    for name in dict.fromkeys(outputs):
        # The runtime infers the type of an output that is only named.
        cut.graph.output.append(declared.get(name, onnx.ValueInfoProto(name=name)))
    return cut


def _uses(node: onnx.NodeProto) -> Iterator[str]:
    """Names a node reads, with what its subgraphs take from outside (and some of their own)."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        subgraphs = [*attribute.graphs]
        if attribute.HasField("g"):
            subgraphs.append(attribute.g)
        for subgraph in subgraphs:
            yield from (value.name for value in subgraph.output)
            for inner in subgraph.node:
                yield from _uses(inner)
