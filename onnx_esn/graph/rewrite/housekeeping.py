"""After a rewrite: drop what lost its readers, and declarations that no longer hold."""

from __future__ import annotations

import onnx
from onnx import helper

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Mask
from onnx_esn.graph.rewrite.slicing import removed_along
from onnx_esn.graph.unread import drop_unread, reads


def drop_unused(old: onnx.ModelProto, new: onnx.ModelProto) -> None:
    """Remove what the rewriting left without a reader (and only that)."""
    drop_unread(new, set(reads(old)))


def fit_declarations(analysis: Analysis, model: onnx.ModelProto, removed: Mask) -> None:
    """Declared shapes lose what their tensors lost; initializers that are inputs likewise."""
    stored = {t.name: t for t in model.graph.initializer}
    for info in model.graph.input:
        if info.name in stored:
            tensor = stored[info.name]
            info.type.CopyFrom(helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims)))
    made = {name for node in model.graph.node for name in node.output}
    kept = []
    for info in model.graph.value_info:
        # Derived parameters are declared nowhere else; they are cheap to infer again.
        if info.name in made and info.name not in analysis.constants:
            _shrink(info, analysis, removed)
            kept.append(info)
    if len(kept) < len(model.graph.value_info):
        del model.graph.value_info[:]
        model.graph.value_info.extend(kept)


def _shrink(info: onnx.ValueInfoProto, analysis: Analysis, removed: Mask) -> None:
    labels = analysis.propagation.labels.get(info.name)
    dims = info.type.tensor_type.shape.dim
    if labels is None or len(dims) != labels.ndim:
        return
    full = analysis.facts.shapes[info.name]
    for axis, gone in removed_along(labels, removed, info.name).items():
        if dims[axis].HasField("dim_value"):
            dims[axis].dim_value -= len(gone) * dims[axis].dim_value // full[axis]
        else:
            dims[axis].Clear()
