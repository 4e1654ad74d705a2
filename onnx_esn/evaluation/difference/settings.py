"""What differs about two models as a whole: operator sets, versions, metadata, inputs, outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import onnx

from onnx_esn.graph.constants import operator_sets
from onnx_esn.graph.inputs import data_inputs, declared_shape

from .changes import SettingChange

_LONGEST = 200


def setting_changes(a: onnx.ModelProto, b: onnx.ModelProto) -> tuple[SettingChange, ...]:
    """Every setting that differs, in a fixed order."""
    first, second = _settings(a), _settings(b)
    names = [*first, *(name for name in second if name not in first)]
    return tuple(
        SettingChange(name, _cut(first.get(name)), _cut(second.get(name)))
        for name in names
        if first.get(name) != second.get(name)
    )


def _settings(model: onnx.ModelProto) -> dict[str, str]:
    found = {"IR version": str(model.ir_version)}
    for domain, version in sorted(operator_sets(model).items()):
        found[f"opset {domain}".strip()] = str(version)
    found["producer"] = f"{model.producer_name} {model.producer_version}".strip()
    found["model version"] = str(model.model_version)
    found["graph name"] = model.graph.name
    found["doc string"] = "\n".join(x for x in (model.doc_string, model.graph.doc_string) if x)
    found.update(_signature("input", data_inputs(model)))
    found.update(_signature("output", model.graph.output))
    for function in model.functions:
        content = function.SerializeToString(deterministic=True)
        digest = hashlib.sha256(content).hexdigest()[:12]
        found[f"function {function.domain}.{function.name}"] = (
            f"{len(function.node)} nodes #{digest}"
        )
    for sparse in model.graph.sparse_initializer:
        content = sparse.SerializeToString(deterministic=True)
        found[f"sparse tensor {sparse.values.name}"] = (
            f"#{hashlib.sha256(content).hexdigest()[:12]}"
        )
    for owner, entries in (("", model.metadata_props), ("graph ", _graph_metadata(model))):
        found.update((f"{owner}metadata {entry.key}", entry.value) for entry in entries)
    return found


def _cut(value: str | None) -> str | None:
    """Metadata may hold whole documents; their beginning tells them apart from others."""
    if value is None or len(value) <= _LONGEST:
        return value
    return f"{value[:_LONGEST]}… ({len(value)} characters)"


def _graph_metadata(model: onnx.ModelProto) -> Iterable[onnx.StringStringEntryProto]:
    return getattr(model.graph, "metadata_props", ())


def _signature(side: str, infos: Iterable[onnx.ValueInfoProto]) -> dict[str, str]:
    found = {}
    for position, info in enumerate(infos):
        shape = declared_shape(info)
        dims = "?" if shape is None else ", ".join("?" if d is None else str(d) for d in shape)
        kind = info.type.WhichOneof("value") or "untyped"
        if kind == "tensor_type":
            kind = onnx.TensorProto.DataType.Name(info.type.tensor_type.elem_type).lower()
        found[f"{side} {position}"] = f"{info.name}: {kind} [{dims}]"
    return found
