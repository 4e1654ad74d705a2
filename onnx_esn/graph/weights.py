"""The weight of a layer as it is stored: where, in what type, and the grid it may lie on.

A weight can reach its layer through nodes that only move values (Transpose, Reshape) or change
their type (Cast, DequantizeLinear with what completes it), or through a Quant of QONNX; its cost in
memory is that of the tensor at their far end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import evaluate_node
from onnx_esn.graph.layer_weight import Floats, StoredWeight, type_width
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.number_formats import EPSILON, round_to
from onnx_esn.graph.quant_operators import is_quant
from onnx_esn.graph.quantized import read_integers
from onnx_esn.numerics.grid import detect_halves
from onnx_esn.numerics.row_blocks import Reals, row_blocks
from onnx_esn.numerics.shifted_grid import ShiftedGrid, detect_shifted

__all__ = [
    "Floats",
    "StoredWeight",
    "as_stored",
    "constant_tensor",
    "path_outputs",
    "read_weight",
    "type_width",
]

_MOVES = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
_CONVERTS = ("Cast", "QuantizeLinear", "DequantizeLinear")


def read_weight(layer: Layer, constants: Constants) -> StoredWeight:
    """Return the weight of a layer, on its grid where `detect_grid` recognises one."""
    W = layer.as_filters(constants.value(layer.weight))
    tensor, path = _path(layer.weight, constants)
    types = [_type(name, constants) for name in (tensor, *(n.output[0] for n in path))]
    # Quantized in the graph (QuantizeLinear → DequantizeLinear), it is used at the integer's width.
    dequantized = [_type(n.input[0], constants) for n in path if n.op_type == "DequantizeLinear"]
    stored = min([types[0], *dequantized], key=type_width)
    # The coarsest type on the way is the one that rounded the values.
    # Before what completes integers there are small ones and their halves, exact in any type.
    last = next((i for i, n in enumerate(path) if n.op_type in ("Add", "Mul")), len(path))
    rounding = types[1 : last + 2] if last < len(path) else types
    coarsest = max((t for t in rounding if t in EPSILON), key=EPSILON.__getitem__, default=None)
    found = None if coarsest is None else detect_halves(W, EPSILON[coarsest])
    read = types[1] if path else types[0]
    lock = _lock(tensor, path, types, constants)
    if found is None or coarsest is None:
        integers = read_integers(layer, constants) if dequantized else None
        shifted = None if integers is not None else _shifted(W, coarsest)
        found_none = (W, tensor, stored, read, None, None, lock)
        return StoredWeight(*found_none, integers=integers, shifted=shifted)
    step = found.step
    for rows in row_blocks(*W.shape):
        values, codes = W[rows].astype(np.float64), found.halves[rows] / 2.0
        step[rows] = _snapped(values, step[rows], codes, coarsest)
    return StoredWeight(W, tensor, stored, read, step, found.halves, lock, found.quantizer)


def _shifted(W: Reals, data_type: int | None) -> ShiftedGrid | None:
    """The shifted grid of the values, with steps that give them to the last bit where any do."""
    found = None if data_type is None else detect_shifted(W, EPSILON[data_type])
    if found is None or data_type is None:
        return None
    step, multiples = found.step, found.codes + found.offset[:, None]
    if data_type == TensorProto.DOUBLE:  # the steps that are written are single ones
        single = round_to(step, TensorProto.FLOAT)
        step = np.where(np.abs(single - step) <= 8 * EPSILON[data_type] * step, single, step)
    values = W.astype(np.float64)
    return found._replace(step=_snapped(values, step, multiples, data_type))


def as_stored(layer: Layer, constants: Constants, rows: NDArray[Any]) -> NDArray[Any]:
    """Return values (M, K) of a layer's filters, of any type, in the layout of its stored tensor.

    Inverse of the way to the layer: Transpose and Reshape are undone by running them on the
    positions of the stored values. Only for a weight that is not `locked`.
    """
    tensor, path = _path(layer.weight, constants)
    moves = [node for node in reversed(path) if node.op_type not in ("Cast", "Identity")]
    if not moves:
        return layer.from_filters(rows)
    shape = constants.shape(tensor)
    positions = np.arange(rows.size).reshape(shape)
    for node in moves:
        others = [constants.value(i) if i else None for i in node.input[1:]]
        (positions,) = evaluate_node(node, [positions, *others], constants.opset.get("", 1))
    result = np.empty(rows.size, rows.dtype)
    result[layer.as_filters(positions)] = rows
    return result.reshape(shape)


def path_outputs(layer: Layer, constants: Constants) -> list[str]:
    """Names of the tensors from the stored one to the one that the layer reads."""
    tensor, path = _path(layer.weight, constants)
    return [tensor, *(node.output[0] for node in reversed(path))]


def _path(name: str, constants: Constants) -> tuple[str, list[onnx.NodeProto]]:
    """The stored tensor behind `name`, and the nodes between, from `name` back to it."""
    path: list[onnx.NodeProto] = []
    while name in constants.producer:
        node = constants.producer[name]
        known = node.op_type in (*_MOVES, *_CONVERTS) or is_quant(node)
        if not known and not _completes_integers(node, constants):
            break
        path.append(node)
        name = node.input[0]
    return name, path


def _completes_integers(node: onnx.NodeProto, constants: Constants) -> bool:
    """Whether a node adds to or multiplies what DequantizeLinear made of stored integers.

    Half-integer codes are stored as integers with an Add of ½ behind, see `formats.qdq_forms`.
    """
    if node.op_type not in ("Add", "Mul"):
        return False
    while node.op_type in ("Add", "Mul", "Cast", *_MOVES):
        before = constants.producer.get(node.input[0])
        if before is None:
            return False
        node = before
    return node.op_type == "DequantizeLinear"


def _type(name: str, constants: Constants) -> int:
    if name in constants.initializers:
        return int(constants.initializers[name].data_type)
    tensor = constant_tensor(constants.producer[name])
    if tensor is not None:
        return tensor.data_type
    return int(helper.np_dtype_to_tensor_dtype(constants.value(name).dtype))


def constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor that a Constant node holds in its `value`; None for anything else."""
    if node.op_type != "Constant":
        return None
    for attribute in node.attribute:
        if attribute.name == "value":
            value: onnx.TensorProto = attribute.t
            return value
    return None


def _lock(tensor: str, path: list[onnx.NodeProto], types: list[int], constants: Constants) -> str:
    quant = next((n.op_type for n in path if is_quant(n)), "")
    if quant:
        return f"its weights are quantized in the graph ({quant})"
    integer = next((n.op_type for n in path if n.op_type.endswith("Linear")), "")
    if integer or types[0] not in EPSILON:
        name = TensorProto.DataType.Name(types[0]).lower()
        return f"its weights are not stored as floats ({integer or name})"
    if tensor in constants.initializers or constant_tensor(constants.producer[tensor]) is not None:
        return ""
    return f"its weights are computed in the graph ({constants.producer[tensor].op_type})"


def _snapped(W: Floats, step: Floats, codes: Floats, data_type: int) -> Floats:
    """The steps, each replaced by a neighbour of the type's own that gives W to the last bit."""
    result: Floats = step.copy()
    near = round_to(step, data_type)
    open_rows = np.flatnonzero(step > 0)
    # Next to a number are those ¾ of its epsilon away, as rounded; ½ below a power of two.
    for away in (0.0, 0.75, -0.75, -0.5):
        candidate = round_to(near[open_rows] * (1 + away * EPSILON[data_type]), data_type)
        product = round_to(candidate[:, None] * codes[open_rows], data_type)
        exact = (product == W[open_rows]).all(axis=1)
        result[open_rows[exact]] = candidate[exact]
        open_rows = open_rows[~exact]
    return result
