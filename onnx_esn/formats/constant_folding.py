"""Store what exporters compute from constants anew at each run: sizes, pads, shapes.

A traced Pad has a dozen nodes that turn constants into eight integers; their text is longer than
a small layer's weights at four bits. Integers only: floats that are computed from constants may be
weights.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import EvaluationError, attributes
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.number_formats import EPSILON
from onnx_esn.graph.quantized import quantizing_node
from onnx_esn.graph.stored import constant_value

_MOST = 1024  # integers
_APART = 4  # from this IR version on an initializer need not be an input


def store_constants(model: onnx.ModelProto) -> None:
    """Turn Constant nodes, and integers computed from constants, into initializers, in place.

    What was only read on the way to them is left without readers.
    """
    if model.ir_version < _APART:
        return
    while _shapes_of_constants(model):
        pass
    constants = Constants(model)
    wanted = _read_at_run_time(model, constants)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        tensor = None
        if len(node.output) == 1 and node.output[0] in constants:
            tensor = _stored(node, constants, wanted)
        if tensor is None:
            model.graph.node.append(node)
        else:
            model.graph.initializer.append(tensor)


def _read_at_run_time(model: onnx.ModelProto, constants: Constants) -> set[str]:
    """The constants that nodes read which are none themselves; not those that are outputs."""
    read: set[str] = set()
    for node in model.graph.node:
        if not any(name in constants for name in node.output):
            read.update(node.input)
        read.update(captured(node))
    return read - {output.name for output in model.graph.output}


def _stored(
    node: onnx.NodeProto, constants: Constants, wanted: set[str]
) -> onnx.TensorProto | None:
    name = node.output[0]
    held = constant_value(node)
    if held is not None:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(held)
        tensor.name = name
        return tensor
    if node.op_type != "Constant" and name not in wanted:
        return None
    if _is_weight(name, constants):
        return None
    try:
        value = constants.value(name)
    except EvaluationError:
        return None
    small = value.size <= _MOST and (node.op_type == "Constant" or value.dtype.kind in "iub")
    return numpy_helper.from_array(np.ascontiguousarray(value), name) if small else None


def _is_weight(name: str, constants: Constants) -> bool:
    """Whether a constant is floats made of stored integers: to compute them all takes long."""
    last = quantizing_node(name, constants)
    if last is None:
        return False
    return last.op_type != "Cast" or attributes(last)["to"] in EPSILON


def _shapes_of_constants(model: onnx.ModelProto) -> bool:
    """Store the results of Shape on constants: nothing changes these any more. True if any."""
    constants = Constants(model)
    found = [
        (i, node)
        for i, node in enumerate(model.graph.node)
        if node.op_type == "Shape" and node.domain == "" and node.input[0] in constants
    ]
    for i, node in reversed(found):
        attrs = attributes(node)
        shape = constants.shape(node.input[0])[slice(attrs.get("start", 0), attrs.get("end"))]
        name = node.output[0]
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
        del model.graph.node[i]
    return bool(found)
