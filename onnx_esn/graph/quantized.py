"""Weights that a model stores as integers: what DequantizeLinear makes of them, and without it.

    W = (q − zero point) · scale,    one scale for all, along an axis, or for blocks of an axis

`q` is stored (onnxruntime, AIMET after export), or computed by a QuantizeLinear from stored floats
(fake quantization by Quark, NNCF and most training frameworks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes, evaluate_node, is_standard
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.quant_operators import is_quant
from onnx_esn.graph.stored import add_initializer
from onnx_esn.graph.unread import drop_unread, reads

Floats = NDArray[np.float64]

_INTEGERS = tuple(
    getattr(TensorProto, name)
    for name in ("INT2", "UINT2", "INT4", "UINT4", "INT8", "UINT8", "INT16", "UINT16", "INT32")
    if hasattr(TensorProto, name)  # older versions of onnx know fewer
)
_SHIFTS = ("Add", "Mul")  # half-integer codes may be stored as integers with ½ added behind
_MOVES = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


def is_dequantize(node: onnx.NodeProto) -> bool:
    """Whether a node is DequantizeLinear, the standard's or onnxruntime's own."""
    return node.op_type == "DequantizeLinear" and is_standard(node)


def quantizing_node(name: str, constants: Constants) -> onnx.NodeProto | None:
    """The last node that makes other numbers of the integers behind a constant, or None.

    DequantizeLinear (or Quant of QONNX), or what casts, shifts or scales the result.
    """
    way = _way(name, constants)
    return next((node for node in way if node.op_type not in _MOVES), None)


def read_integers(layer: Layer, constants: Constants) -> Floats | None:
    """Integers q − zero point (M, K) of a layer's weight as filters; None where it has none.

    None as well where numbers that are not whole are dequantized (float8).
    """
    path: list[onnx.NodeProto] = []
    for node in _way(layer.weight, constants):
        if is_dequantize(node):
            n = _integers(node, constants)
            if n is None or any(step.op_type in _SHIFTS for step in path):
                return None
            for step in reversed(path):
                if step.op_type in _MOVES:
                    others = [constants.value(i) if i else None for i in step.input[1:]]
                    (n,) = evaluate_node(step, [n, *others], constants.opset.get("", 1))
            return layer.as_filters(n).astype(np.float64)
        path.append(node)
    return None


def _way(name: str, constants: Constants) -> list[onnx.NodeProto]:
    """The nodes behind a constant, from it back to the one that quantizes; () if none does."""
    found = []
    while name in constants.producer:
        node = constants.producer[name]
        found.append(node)
        if is_dequantize(node) or is_quant(node):
            return found
        if node.op_type not in (*_MOVES, "Cast", *_SHIFTS):
            break
        name = node.input[0]
    return []


def _integers(node: onnx.NodeProto, constants: Constants) -> NDArray[Any] | None:
    q = constants.value(node.input[0])
    if helper.np_dtype_to_tensor_dtype(q.dtype) not in _INTEGERS:
        return None
    n = q.astype(np.float32 if q.dtype.itemsize < 4 else np.float64)  # exact: at most 16 bits
    if len(node.input) > 2 and node.input[2]:
        zero = constants.value(node.input[2])
        attrs = attributes(node)
        n = n - spread(zero.astype(n.dtype), n.shape, attrs.get("axis", 1), attrs)
    return n


def spread(
    parameter: NDArray[Any], shape: Sequence[int], axis: int, attrs: dict[str, Any]
) -> NDArray[Any]:
    """A scale or zero point, so that it broadcasts against the values: of this shape."""
    if parameter.size == 1:
        return parameter.reshape(())
    axis = axis % len(shape)
    block = int(attrs.get("block_size", 0))
    if block:
        wide = np.repeat(parameter, block, axis=axis)  # the last block may be a short one
        return wide[(slice(None),) * axis + (slice(0, shape[axis]),)]
    return parameter.reshape([-1 if a == axis else 1 for a in range(len(shape))])


def quantize_values(node: onnx.NodeProto, inputs: Sequence[NDArray[Any] | None]) -> Floats:
    """What QuantizeLinear or DequantizeLinear makes of numbers, as floats.

    For moments: the data (…, C, …) may have axes in front that the node's own have not, and the
    integers between the two nodes are floats here.
    """
    attrs = attributes(node)
    x, scale = (np.asarray(i, np.float32) for i in inputs[:2] if i is not None)
    given = inputs[2] if len(inputs) > 2 else None
    kind = TensorProto.UINT8 if given is None else helper.np_dtype_to_tensor_dtype(given.dtype)
    kind = attrs.get("output_dtype", 0) or kind
    zero = np.zeros((), np.float32) if given is None else np.asarray(given).astype(np.float32)
    if scale.size > 1 or zero.size > 1:
        raise ValueError("scales along an axis")
    if is_dequantize(node):
        return np.asarray((x - zero.reshape(())) * scale.reshape(()), np.float64)
    if kind not in _INTEGERS:
        raise ValueError("not integers")
    name = TensorProto.DataType.Name(kind)
    width = int(name.lstrip("UINT"))
    low = 0 if name.startswith("U") else -(1 << (width - 1))
    whole = np.rint(x / scale.reshape(())) + zero.reshape(())
    return np.asarray(np.clip(whole, low, low + (1 << width) - 1), np.float64)


def with_float_weights(model: onnx.ModelProto, layers: Sequence[Layer]) -> onnx.ModelProto:
    """A copy in which these layers read the floats that DequantizeLinear (or Quant) makes, stored.

    The values are exactly those that the model computes with. Biases that are dequantized follow:
    their scale is that of a product that is not one of integers any more. What only the integers
    needed goes. A weight that is none of these, in a subgraph say, is left alone.

    Args:
        model: the model.
        layers: layers of it; those without integers are passed over.
    """
    constants = Constants(model)
    wanted = [x.weight for x in layers] + [x.bias for x in layers if x.bias]
    nodes = [quantizing_node(n, constants) for n in wanted]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    before = set(reads(copy))
    renamed: dict[str, str] = {}
    known: dict[tuple[object, ...], str] = {}
    for node in {n.output[0]: n for n in nodes if n is not None}.values():
        # Layers that share integers go on sharing a tensor.
        attrs = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
        key = (node.op_type, *node.input, *attrs)
        if key in known:
            renamed[node.output[0]] = known[key]
            continue
        known[key] = renamed[node.output[0]] = node.output[0]
        value = constants.value(node.output[0], keep=False)
        add_initializer(copy, numpy_helper.from_array(value, node.output[0]))
    _replace(copy, renamed)
    drop_unread(copy, before)
    return copy


def _replace(model: onnx.ModelProto, renamed: dict[str, str]) -> None:
    """Remove the nodes that make the tensors named, and let readers read their stand-ins."""
    kept = {o.name for o in model.graph.output}
    kept.update(name for node in model.graph.node for name in captured(node))
    for i in reversed(range(len(model.graph.node))):
        node = model.graph.node[i]
        name = node.output[0] if node.output else ""
        if name not in renamed:
            continue
        if name != renamed[name] and name in kept:
            same = helper.make_node("Identity", [renamed[name]], [name], name=node.name)
            node.CopyFrom(same)
        else:
            del model.graph.node[i]
    for node in model.graph.node:
        for slot, name in enumerate(node.input):
            if name in renamed:
                node.input[slot] = renamed[name]
