"""The weight of a layer as it is stored: where, in what type, and the grid it may lie on.

A weight can reach its layer through nodes that only move values (Transpose, Reshape) or change
their type (Cast, DequantizeLinear with what completes it), or through a Quant of QONNX; its cost in
memory is that of the tensor at their far end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import evaluate_node
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.number_formats import EPSILON, round_to
from onnx_esn.graph.quant_operators import is_quant
from onnx_esn.graph.quantized import read_integers
from onnx_esn.numerics.esn import Integers, bits, filter_bits
from onnx_esn.numerics.grid import detect_grid

Floats = NDArray[np.float64]

_MOVES = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
_CONVERTS = ("Cast", "QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class StoredWeight:
    """The weight of a layer.

    Attributes:
        W: its values as filters (M, K).
        tensor: name of the stored tensor behind it (of a computed weight, the computed one).
        type: element type of that tensor (`TensorProto.DataType`).
        read_type: element type as the layer reads it; another one behind a Cast.
        step: canonical step Δ (M,) where the values lie on a grid, else None.
        codes: W_int (M, K) on that grid, else None.
        locked: why other values cannot be written to it, or "".
        quantizer: whose grid it is, a name in `QUANTIZERS`, or "" off the grid.
        integers: what DequantizeLinear multiplies with the scales, q − zero point (M, K), where it
            makes the weight and the values lie on no grid (−128 and what a zero point moves beyond
            ±127 are on none, nor are filters with several scales); else None.
    """

    W: Floats
    tensor: str
    type: int
    read_type: int
    step: Floats | None
    codes: Floats | None
    locked: str
    quantizer: str = ""
    integers: Floats | None = None

    @property
    def counted(self) -> Floats | None:
        """What bits are counted of: the codes, or else the integers; None of plain floats."""
        return self.integers if self.codes is None else self.codes

    def code_bits(self, x: npt.ArrayLike) -> Integers:
        """Bits of each of the codes; of a stored integer at most those it is stored in."""
        return bits(x) if self.type in EPSILON else np.minimum(bits(x), self.width)

    @property
    def type_name(self) -> str:
        """Name of the stored type, such as `float32` or `int8`."""
        name: str = TensorProto.DataType.Name(self.type).lower()
        return {"float": "float32", "double": "float64"}.get(name, name)

    @property
    def width(self) -> int:
        """Bits of one stored value."""
        return type_width(self.type)

    @property
    def filter_bits(self) -> Integers:
        """Bits (M,) of each filter: those of its largest code, or the stored width off the grid."""
        if self.counted is not None:
            return filter_bits(self.counted, self.code_bits)
        return np.full(self.W.shape[0], self.width, dtype=np.int64)


def type_width(data_type: int) -> int:
    """Return the bits of one value of a `TensorProto.DataType` (8 for a bool, 32 for float)."""
    name = TensorProto.DataType.Name(data_type)
    fixed = {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}.get(name)
    digits = re.search(r"\d+", name)
    return fixed or (int(digits[0]) if digits else 0)


def read_weight(layer: Layer, constants: Constants) -> StoredWeight:
    """Return the weight of a layer, on its grid where `detect_grid` recognises one."""
    W = layer.as_filters(constants.value(layer.weight)).astype(np.float64)
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
    found = None if coarsest is None else detect_grid(W, EPSILON[coarsest])
    read = types[1] if path else types[0]
    lock = _lock(tensor, path, types, constants)
    if found is None or coarsest is None:
        integers = read_integers(layer, constants) if dequantized else None
        return StoredWeight(W, tensor, stored, read, None, None, lock, integers=integers)
    step = _snapped(W, found.step, found.codes, coarsest)
    return StoredWeight(W, tensor, stored, read, step, found.codes, lock, found.quantizer)


def as_stored(layer: Layer, constants: Constants, rows: Floats) -> Floats:
    """Return values (M, K) of a layer's filters in the layout of its stored tensor.

    Inverse of the way to the layer: Transpose and Reshape are undone by running them on the
    positions of the stored values. Only for a weight that is not `locked`.
    """
    tensor, path = _path(layer.weight, constants)
    moves = [node for node in reversed(path) if node.op_type not in ("Cast", "Identity")]
    if not moves:
        return np.asarray(layer.from_filters(rows), dtype=np.float64)
    shape = constants.shape(tensor)
    positions = np.arange(rows.size).reshape(shape)
    for node in moves:
        others = [constants.value(i) if i else None for i in node.input[1:]]
        (positions,) = evaluate_node(node, [positions, *others], constants.opset.get("", 1))
    result = np.empty(rows.size)
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
