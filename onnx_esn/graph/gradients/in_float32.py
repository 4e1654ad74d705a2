"""A model of float16 or float64 as one of float32, which is what gradients are worked out in."""

from __future__ import annotations

import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from onnx_esn.graph.intake.walk import all_graphs, all_nodes, all_tensors

_OTHERS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_TYPES = ("to", "dtype", "output_dtype", "output_datatype")  # attributes that name a type


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes the same in float32; the model itself where it does so already.

    Its weights are in memory.
    """
    if not any(_is_other(info) for info in (*model.graph.input, *model.graph.output)) and not any(
        tensor.data_type in _OTHERS for tensor in all_tensors(model)
    ):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in all_tensors(copy):
        if tensor.data_type in _OTHERS:
            values = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in all_nodes(copy):
        for attribute in node.attribute:
            named = attribute.name in _TYPES and attribute.type == AttributeProto.INT
            if named and attribute.i in _OTHERS:
                attribute.i = TensorProto.FLOAT
    for graph, _ in all_graphs(copy):
        del graph.value_info[:]
        for info in (*graph.input, *graph.output):
            if _is_other(info):
                info.type.tensor_type.elem_type = TensorProto.FLOAT
    for function in copy.functions:
        del function.value_info[:]
    return copy


def _is_other(info: onnx.ValueInfoProto) -> bool:
    return info.type.HasField("tensor_type") and info.type.tensor_type.elem_type in _OTHERS
