"""What a model declares of its inputs and outputs: element types, and sizes within reason."""

from __future__ import annotations

import math

import onnx

from onnx_esn.errors import ModelError
from onnx_esn.graph.intake.limits import AXES, INPUT_VALUES
from onnx_esn.graph.intake.tensors import bits_of, shape_text


def check_declared(model: onnx.ModelProto, name: str) -> None:
    """Refuse unknown element types, and inputs that no machine could be fed.

    Raises:
        ModelError: naming the tensor.
    """
    graph = model.graph
    for info in (*graph.input, *graph.output, *graph.value_info):
        tensor = info.type.tensor_type
        if tensor.elem_type not in (0, onnx.TensorProto.STRING) and not bits_of(tensor.elem_type):
            raise ModelError(
                f"{name}: {info.name!r} has the element type {tensor.elem_type}, which this "
                "version of onnx does not know; update onnx, or export the model again"
            )
        if len(tensor.shape.dim) > AXES:
            raise ModelError(
                f"{name}: {info.name!r} has {len(tensor.shape.dim)} axes; {AXES} is the most"
            )
    stored = {t.name for t in graph.initializer}
    for info in graph.input:
        sizes = [max(1, d.dim_value) for d in info.type.tensor_type.shape.dim]
        if info.name not in stored and math.prod(sizes) > INPUT_VALUES:
            raise ModelError(
                f"{name}: the input {info.name!r} declares {shape_text(sizes)}, "
                f"{math.prod(sizes)} values; {INPUT_VALUES} is the most: export the model with "
                "smaller or dynamic sizes"
            )
