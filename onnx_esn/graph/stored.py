"""Stored tensors of a model: add one, copy a model without them."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper


def add_initializer(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    """Store a new tensor; below IR version 4 it has to be a graph input as well."""
    model.graph.initializer.append(tensor)
    if model.ir_version < 4:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )


def without_stored(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that lacks the stored tensors: they are most of a model, and may not be wanted."""
    copy = onnx.ModelProto()
    _copy_fields(model, copy, "graph")
    _copy_fields(model.graph, copy.graph, "initializer")
    return copy


def _copy_fields(source: Any, target: Any, left_out: str) -> None:
    for field, value in source.ListFields():
        if field.name == left_out:
            continue
        if field.is_repeated:
            getattr(target, field.name).extend(value)
        elif field.message_type is not None:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)
