"""A model in another float type, everything else as it was: rounding goes, mistakes stay."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, numpy_helper

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def in_type(model, sources, target):
    """A copy whose tensors of one of the types `sources` are of type `target`.

    Scales of Resize stay: they are of single precision in every model.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for info in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
        if info.type.tensor_type.elem_type in sources:
            info.type.tensor_type.elem_type = target
    scales = {
        name
        for node in copy.graph.node
        if node.op_type in ("Resize", "Upsample")
        for name in node.input[1:]
    }
    _convert(copy.graph, sources, target, scales)
    return copy


def _convert(graph, sources, target, scales):
    for tensor in graph.initializer:
        if tensor.name not in scales:
            _retype(tensor, sources, target)
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and not node.attribute:  # a zero in single precision
            zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
            node.attribute.append(helper.make_attribute("value", zero))
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in sources:
                attribute.i = target
            if attribute.HasField("t") and node.output[0] not in scales:
                _retype(attribute.t, sources, target)
            if attribute.HasField("g"):
                for info in (*attribute.g.input, *attribute.g.output):
                    if info.type.tensor_type.elem_type in sources:
                        info.type.tensor_type.elem_type = target
                _convert(attribute.g, sources, target, scales)


def _retype(tensor, sources, target):
    if tensor.data_type in sources:
        value = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(target))
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def uses(model, types):
    """Whether the model stores or casts to tensors of one of these types."""
    return any(t.data_type in types for t in model.graph.initializer) or any(
        a.name == "to" and a.i in types for node in model.graph.node for a in node.attribute
    )
