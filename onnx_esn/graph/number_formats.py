"""The float types that weights are stored in: precision, rounding, bytes.

bfloat16 is rounded and packed here, because numpy has no such type and the versions of `onnx` that
we support disagree on how they present it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

Floats = npt.NDArray[np.float64]

# Distance from 1 to the next number.
EPSILON: dict[int, float] = {
    TensorProto.FLOAT: 2.0**-23,
    TensorProto.DOUBLE: 2.0**-52,
    TensorProto.FLOAT16: 2.0**-10,
    TensorProto.BFLOAT16: 2.0**-7,
}
_NUMPY: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
}


def round_to(values: npt.ArrayLike, data_type: int) -> Floats:
    """Return the values rounded to the nearest of a float type (ties to even), in float64.

    What is too large for the type becomes infinite. The type is a key of `EPSILON`.
    """
    x = np.asarray(values, dtype=np.float64)
    if data_type == TensorProto.BFLOAT16:
        high = _bfloat16(x).astype(np.uint32) << 16
        return np.asarray(high.view(np.float32), dtype=np.float64).reshape(x.shape)
    with np.errstate(over="ignore"):
        return np.asarray(x.astype(_NUMPY[data_type]), dtype=np.float64)


def to_bytes(values: npt.ArrayLike, data_type: int) -> bytes:
    """Return the values as `raw_data` of a tensor: the type's own bytes, little-endian, C order."""
    return to_stored(values, data_type).tobytes()


def to_stored(values: npt.ArrayLike, data_type: int) -> npt.NDArray[Any]:
    """Return the values in a float type, little-endian; bfloat16 as its bits, in uint16."""
    x = np.ascontiguousarray(values, dtype=np.float64)
    if data_type == TensorProto.BFLOAT16:
        return _bfloat16(x).astype(stored_dtype(data_type), copy=False)
    with np.errstate(over="ignore"):
        return x.astype(stored_dtype(data_type))


def stored_dtype(data_type: int) -> np.dtype[Any]:
    """The type of what `to_stored` returns."""
    kind: np.dtype[Any] = np.dtype(_NUMPY.get(data_type, np.uint16)).newbyteorder("<")
    return kind


def _bfloat16(x: Floats) -> npt.NDArray[np.uint16]:
    """The upper half of the float32 nearest to x, rounded to even; x is finite."""
    with np.errstate(over="ignore"):
        word = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((word + 0x7FFF + ((word >> 16) & 1)) >> 16).astype(np.uint16)
