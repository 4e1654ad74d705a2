"""What a verb takes for a model: a path, an `onnx.ModelProto` or an `onnx_ir.Model`.

`onnx_ir` is not needed, and not imported: whoever passes such a model has imported it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import onnx
from onnx.external_data_helper import uses_external_data

from onnx_esn.errors import ModelError


class IrModel(Protocol):
    """What is used here of an `onnx_ir.Model`."""

    @property
    def graph(self) -> Any:
        """Its graph."""

    @property
    def opset_imports(self) -> Any:
        """Version of each operator set, by domain."""


Plain = onnx.ModelProto | str | os.PathLike[str]
ModelSource = onnx.ModelProto | str | os.PathLike[str] | IrModel


def plain_source(source: ModelSource) -> Plain:
    """Return a path or a `ModelProto` as it is, an `onnx_ir.Model` as a `ModelProto` of its own.

    Weights that the latter keeps in external files are read.

    Raises:
        ModelError: it is none of these, or an external file cannot be read.
    """
    if isinstance(source, onnx.ModelProto | str | os.PathLike):
        return source
    ir = sys.modules.get("onnx_ir")
    if ir is None or not isinstance(source, ir.Model):
        raise ModelError(
            f"a {type(source).__name__} is not a model: give a path, an onnx.ModelProto or an "
            "onnx_ir.Model"
        )
    proto: onnx.ModelProto = ir.to_proto(source)
    _read_external(proto, source.graph)
    return proto


def source_name(source: Plain) -> str:
    """A name for messages: the path, or "model"."""
    return "model" if isinstance(source, onnx.ModelProto) else str(source)


def _read_external(proto: onnx.ModelProto, graph: Any) -> None:
    """Put into a model what its tensors keep in files (which only the other form knows of)."""
    if not any(uses_external_data(t) for g in _graphs(proto.graph) for t in g.initializer):
        return
    stored = {
        name: value.const_value
        for g in (graph, *graph.subgraphs())
        for name, value in g.initializers.items()
    }
    for inner in _graphs(proto.graph):
        for tensor in inner.initializer:
            if uses_external_data(tensor):
                try:
                    tensor.raw_data = stored[tensor.name].tobytes()
                except (OSError, ValueError) as error:
                    raise ModelError(
                        f"model: the external data of {tensor.name!r} cannot be read: {error}"
                    ) from error
                tensor.ClearField("data_location")
                del tensor.external_data[:]


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _graphs(inner)
