"""Operators in terms of others: those that onnxruntime's optimiser fuses, picking by a mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.hoisting import Names

# Parts that compute the same, or None where this use of the operator cannot be taken apart.
Unfuse = Callable[[onnx.NodeProto, Names, Constants], list[onnx.NodeProto] | None]

_PARAMETERS = {
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Elu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
}
_PLAIN = ("Relu", "Sigmoid", "Tanh", "Softplus", "HardSwish")


def _activation(
    node: onnx.NodeProto, source: str, out: str, names: Names, constants: Constants
) -> list[onnx.NodeProto] | None:
    """The activation named in the attributes of a fused node, from `source` to `out`."""
    attrs = attributes(node)
    kind = attrs.get("activation", b"").decode()
    given = list(attrs.get("activation_params", []))
    if kind == "Clip":
        dtype = _dtype(node, constants)
        if dtype is None or constants.opset.get("", 1) < 11:
            return None
        low, high = (_scalar(v, out, names, dtype) for v in given)
        return [low, high, _node("Clip", [source, low.output[0], high.output[0]], out)]
    if kind in _PARAMETERS:
        keys = _PARAMETERS[kind]
        given = given or [attrs[f"activation_{k}"] for k in keys if f"activation_{k}" in attrs]
        named: dict[str, Any] = dict(zip(keys, given, strict=False))
        return [_node(kind, [source], out, **named)]
    return [_node(kind, [source], out)] if kind in _PLAIN else None


def _dtype(node: onnx.NodeProto, constants: Constants) -> np.dtype[Any] | None:
    """Element type of the operands, where one of them is stored."""
    for name in node.input:
        if name in constants.initializers:
            return helper.tensor_dtype_to_np_dtype(constants.initializers[name].data_type)
    return None


def _node(op: str, inputs: list[str], out: str, **attrs: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [out], name=out, **attrs)


def _scalar(value: float, out: str, names: Names, dtype: np.dtype[Any]) -> onnx.NodeProto:
    name = names.fresh(f"{out}_constant")
    tensor = numpy_helper.from_array(np.array(value, dtype), name)
    return helper.make_node("Constant", [], [name], name=name, value=tensor)


def _plain(
    node: onnx.NodeProto, op: str, inputs: list[str], out: str, drop: tuple[str, ...]
) -> onnx.NodeProto:
    """The operator inside a fused one: its name, and its attributes but those that begin so."""
    plain = helper.make_node(op, inputs, [out], name=node.name)
    plain.attribute.extend(a for a in node.attribute if not a.name.startswith(drop))
    plain.metadata_props.extend(node.metadata_props)
    plain.doc_string = node.doc_string
    return plain


def _fused_conv(
    node: onnx.NodeProto, names: Names, constants: Constants
) -> list[onnx.NodeProto] | None:
    """Act(X * W + B + Z)."""
    out = node.output[0]
    raw = names.fresh(f"{out}_conv")
    parts = [_plain(node, "Conv", list(node.input[:3]), raw, ("activation",))]
    if len(node.input) > 3 and node.input[3]:
        total = names.fresh(f"{out}_sum")
        parts.append(_node("Add", [raw, node.input[3]], total))
        raw = total
    return _closed(parts, _activation(node, raw, out, names, constants))


def _fused_gemm(
    node: onnx.NodeProto, names: Names, constants: Constants
) -> list[onnx.NodeProto] | None:
    """Act(α A' B' + β C)."""
    out = node.output[0]
    raw = names.fresh(f"{out}_gemm")
    parts = [_plain(node, "Gemm", list(node.input), raw, ("activation",))]
    return _closed(parts, _activation(node, raw, out, names, constants))


def _closed(
    parts: list[onnx.NodeProto], end: list[onnx.NodeProto] | None
) -> list[onnx.NodeProto] | None:
    """The parts, then the activation; its constants come first."""
    return None if end is None else [*end[:-1], *parts, end[-1]]


def _fused_matmul(
    node: onnx.NodeProto, names: Names, constants: Constants
) -> list[onnx.NodeProto] | None:
    """α A' B', where what is transposed is stored; activations stay fused."""
    attrs = attributes(node)
    if any(attrs.get(k, 0) for k in ("transBatchA", "transBatchB")):
        return None
    alpha, out = float(attrs.get("alpha", 1.0)), node.output[0]
    factors, parts = list(node.input), []
    for k, key in enumerate(("transA", "transB")):
        if attrs.get(key, 0):
            if factors[k] not in constants:
                return None
            turned = names.fresh(f"{factors[k]}_turned")
            rank = len(constants.shape(factors[k]))
            perm = [*range(rank - 2), rank - 1, rank - 2]
            parts.append(_node("Transpose", [factors[k]], turned, perm=perm))
            factors[k] = turned
    if alpha == 1.0:
        return [*parts, _plain(node, "MatMul", factors, out, ("",))]
    dtype = _dtype(node, constants)
    if dtype is None:
        return None
    raw, factor = names.fresh(f"{out}_product"), _scalar(alpha, out, names, dtype)
    return [
        *(*parts, factor),
        _plain(node, "MatMul", factors, raw, ("",)),
        _node("Mul", [raw, factor.output[0]], out),
    ]


def _compress(
    node: onnx.NodeProto, names: Names, constants: Constants
) -> list[onnx.NodeProto] | None:
    """Compress by a stored condition picks stored indices."""
    attrs = attributes(node)
    if node.input[1] not in constants or "axis" not in attrs:
        return None
    name = names.fresh(f"{node.output[0]}_indices")
    indices = np.flatnonzero(constants.value(node.input[1])).astype(np.int64)
    stored = helper.make_node(
        "Constant", [], [name], name=name, value=numpy_helper.from_array(indices, name)
    )
    return [stored, _plain(node, "Gather", [node.input[0], name], node.output[0], ())]


_RUNTIME = "com.microsoft"
UNFUSE: dict[tuple[str, str], Unfuse] = {
    ("", "Compress"): _compress,
    (_RUNTIME, "FusedConv"): _fused_conv,
    (_RUNTIME, "FusedGemm"): _fused_gemm,
    (_RUNTIME, "FusedMatMul"): _fused_matmul,
}
