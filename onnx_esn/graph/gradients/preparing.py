"""A model as `append_backward` wants it, and what is known of the nodes put behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from onnx_esn.graph.constants import operator_sets
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.gradients.backward import LEAST_OPSET
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.opset import raise_opset
from onnx_esn.graph.shapes import infer_facts

_IR_VERSION = 8  # initializers are no inputs any more


def differentiable(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that gradients are known of; it never leaves, so that its IR version is free.

    Raises:
        OperationError: the operator set cannot be raised.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(copy.ir_version, _IR_VERSION)
    if operator_sets(model).get("", 1) >= LEAST_OPSET:
        return copy
    return raise_opset(copy, LEAST_OPSET)[0]


def tensor_info(
    name: str, facts: Facts, shape: Shape, elem: int | None = None
) -> onnx.ValueInfoProto:
    """A declaration of a tensor, of the type that it has if none is given."""
    return helper.make_tensor_value_info(name, elem or facts.types[name], shape)


def fix_inputs(graph: onnx.GraphProto, facts: Facts, sizes: Mapping[str, Shape]) -> None:
    """Declare inputs with the sizes that the graph will run at."""
    for info in graph.input:
        if info.name in sizes:
            info.CopyFrom(tensor_info(info.name, facts, sizes[info.name]))


def infer_appended(
    model: onnx.ModelProto, facts: Facts, first: int, given: Sequence[onnx.ValueInfoProto]
) -> None:
    """Tell the facts the shapes behind the nodes from `first` on, which read what is given."""
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.node.extend(model.graph.node[first:])
    part.graph.initializer.extend(model.graph.initializer)
    part.graph.input.extend(given)
    found = infer_facts(part, {info.name: _sizes(info) for info in given})
    facts.shapes.update(found.shapes)
    facts.types.update(found.types)


def _sizes(info: onnx.ValueInfoProto) -> Shape:
    return tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
