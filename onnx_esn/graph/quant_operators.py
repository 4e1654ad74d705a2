"""The quantizers of QONNX, which are operators of a domain of their own: what they compute.

    Quant(x, scale, zero_point, bit_width) = (round(clip(x/scale + zero_point)) − zero_point)·scale
    BipolarQuant(x, scale)                 = ±scale, by the sign of x

Both take and make floats; the operands broadcast against x.

Source: the operator descriptions of QONNX. Its package clips before it rounds and takes a signed
Quant of one bit for a bipolar one; so do we.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Array = NDArray[Any]

DOMAIN = "qonnx.custom_op.general"
# What older exporters wrote; the package renames them when it reads a file.
_DOMAINS = (DOMAIN, "finn.custom_op.general", "onnx.brevitas")
_ROUNDING: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.copysign(np.ceil(np.abs(x)), x),
    "DOWN": np.trunc,
    "HALF_UP": lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x),
    "HALF_DOWN": lambda x: np.copysign(np.ceil(np.abs(x) - 0.5), x),
}


def is_quant(node: onnx.NodeProto) -> bool:
    """Whether the node is a Quant or BipolarQuant of QONNX."""
    return node.domain in _DOMAINS and node.op_type in ("Quant", "BipolarQuant")


def evaluate_quant(op_type: str, attrs: dict[str, Any], inputs: Sequence[Array | None]) -> Array:
    """Return the output, float32 in the shape of x, of a Quant or BipolarQuant.

    Args:
        op_type: which of the two.
        attrs: the attributes of the node, with defaults for those left out.
        inputs: x, scale and, of a Quant, zero point and bit width.

    Raises:
        ValueError: an input is missing, or the rounding mode is unknown.
    """
    given = [np.asarray(i) for i in inputs if i is not None]
    if len(given) != (4 if op_type == "Quant" else 2):
        raise ValueError("an input is missing")
    x, scale = given[:2]
    with np.errstate(all="ignore"):
        if op_type == "BipolarQuant":
            return np.asarray(np.where(x >= 0, scale, -scale), np.float32)
        zero, bits = given[2:]
        mode = attrs.get("rounding_mode", "ROUND")
        rounded = _ROUNDING.get((mode.decode() if isinstance(mode, bytes) else mode).upper())
        if rounded is None:
            raise ValueError(f"rounding mode {mode!r} is unknown")
        low, high = quant_range(bits, bool(attrs.get("signed", 1)), bool(attrs.get("narrow", 1)))
        y = x / scale + zero
        code = rounded(np.clip(y, low.astype(y.dtype), high.astype(y.dtype)))
        if attrs.get("signed", 1):
            code = np.where(bits == 1, np.where(y >= 0, 1, -1).astype(y.dtype), code)
        return np.asarray((code - zero) * scale, np.float32)


def quant_range(bits: Array, signed: bool, narrow: bool) -> tuple[Array, Array]:
    """Return the least and the largest integer of a number of bits, in the shape of `bits`."""
    count = 2.0 ** np.asarray(bits, np.float64)
    if signed:
        return -count / 2 + narrow, count / 2 - 1
    return np.zeros_like(count), count - 1 - narrow
