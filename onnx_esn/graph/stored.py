"""Stored tensors of a model: add one, copy a model without them or without the large ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx
from onnx import helper

# Elements; must not be below what `shapes` follows: values of stand-ins are never asked for.
_HEAVY = 1 << 13


def add_initializer(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    """Store a new tensor; below IR version 4 it has to be a graph input as well."""
    model.graph.initializer.append(tensor)
    if model.ir_version < 4:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )


def without_stored(model: onnx.ModelProto, *, nodes: bool = True) -> onnx.ModelProto:
    """A copy that lacks the stored tensors: they are most of a model, and may not be wanted.

    Args:
        model: the model.
        nodes: whether it has the nodes.
    """
    return _copy_without(model, "initializer", *(() if nodes else ("node",)))


def without_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that lacks the nodes: others are to take their place."""
    return _copy_without(model, "node")


def without_values(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that lacks the initializers and has stand-ins in its Constant nodes.

    A message never gives memory back that it took once, so what is to be replaced should not be
    copied into it in the first place.
    """
    copy = _copy_without(model, "initializer", "node")
    for node in model.graph.node:
        value = constant_value(node)
        if value is None or not is_heavy(value.dims):
            copy.graph.node.append(node)
            continue
        light = copy.graph.node.add()
        _copy_fields(node, light, "attribute")
        for attribute in node.attribute:
            if attribute.name != "value":
                light.attribute.append(attribute)
                continue
            added = light.attribute.add()
            _copy_fields(attribute, added, "t")
            added.t.CopyFrom(stand_in(value, value.name, value.dims))
    return copy


def taken_apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """A copy with empty tensors in the place of large ones, and those (not copied)."""
    copy = without_values(model)
    values = (v for n in model.graph.node if (v := constant_value(n)) is not None)
    large = [t for t in (*model.graph.initializer, *values) if is_heavy(t.dims)]
    for tensor in model.graph.initializer:
        if is_heavy(tensor.dims):
            tensor = stand_in(tensor, tensor.name, [0] * len(tensor.dims))
        copy.graph.initializer.append(tensor)
    for node in copy.graph.node:
        value = constant_value(node)
        if value is not None and is_heavy(value.dims):
            value.dims[:] = [0] * len(value.dims)
    return copy, large


def is_heavy(dims: Sequence[int]) -> bool:
    """Whether a tensor of this shape is worth a stand-in."""
    return math.prod(dims) > _HEAVY


def stand_in(tensor: onnx.TensorProto, name: str, dims: Sequence[int]) -> onnx.TensorProto:
    """A tensor of the same type, without values: whoever only walks the graph needs no more."""
    return onnx.TensorProto(name=name, data_type=tensor.data_type, dims=dims)


def constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor that a Constant node holds in its `value`; None for anything else."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    return next((a.t for a in node.attribute if a.name == "value"), None)


def _copy_without(model: onnx.ModelProto, *left_out: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    _copy_fields(model, copy, "graph")
    _copy_fields(model.graph, copy.graph, *left_out)
    return copy


def _copy_fields(source: Any, target: Any, *left_out: str) -> None:
    for field, value in source.ListFields():
        if field.name in left_out:
            continue
        if field.is_repeated:
            getattr(target, field.name).extend(value)
        elif field.message_type is not None:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)
