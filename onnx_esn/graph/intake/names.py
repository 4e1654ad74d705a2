"""Names are text: protobuf hands out bytes where a file has something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from onnx_esn.errors import ModelError
from onnx_esn.graph.intake.walk import all_graphs, all_nodes


def check_names(model: onnx.ModelProto, name: str) -> None:
    """Refuse names that are no UTF-8; raises `ModelError`."""
    for found in _names(model):
        if not isinstance(found, str):
            raise ModelError(
                f"{name}: the name {bytes(found)[:80]!r} is not UTF-8; the file is damaged: export "
                "the model again"
            )


def _names(model: onnx.ModelProto) -> Iterator[Any]:
    for opset in model.opset_import:
        yield opset.domain
    for entry in model.metadata_props:
        yield from (entry.key, entry.value)
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
    for graph, _ in all_graphs(model):
        yield from (graph.name, graph.doc_string)
        yield from (tensor.name for tensor in graph.initializer)
        yield from (sparse.values.name for sparse in graph.sparse_initializer)
        for info in (*graph.input, *graph.output, *graph.value_info):
            yield info.name
            yield from (d.dim_param for d in info.type.tensor_type.shape.dim)
    for node in all_nodes(model):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)
        for entry in node.metadata_props:
            yield from (entry.key, entry.value)
