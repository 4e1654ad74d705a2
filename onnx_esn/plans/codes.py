"""Integer codes as text, for plans that carry the codes themselves and not only bits and steps.

base64 of zlib of the numbers 2·W_int, filter by filter, as little-endian 16-bit integers: twice the
code is an integer for mid-rise and mid-tread codes alike.
"""

from __future__ import annotations

import base64
import binascii
import zlib

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import PlanError

Floats = npt.NDArray[np.float64]

_TYPE = np.dtype("<i2")
_LEVEL = 3  # of zlib: codes are close to independent, so that searching longer gains nothing


def encode_codes(W_int: npt.ArrayLike) -> str:
    """Return the codes W_int (M, K) as text.

    Raises:
        ValueError: a code is not a multiple of ½, or beyond ±16383.5.
    """
    doubled = 2.0 * np.asarray(W_int, dtype=np.float64)
    limit = np.iinfo(_TYPE).max
    if not (np.abs(doubled) <= limit).all() or (doubled != np.rint(doubled)).any():
        raise ValueError(f"codes must be multiples of 0.5 within ±{limit / 2}")
    raw = np.ascontiguousarray(doubled.astype(_TYPE)).tobytes()
    return base64.b64encode(zlib.compress(raw, _LEVEL)).decode("ascii")


def decode_codes(text: str, shape: tuple[int, ...]) -> Floats:
    """Return the codes W_int of a shape (M, K) from their text.

    Raises:
        PlanError: the text is damaged, or holds codes for another number of weights.
    """
    expected = int(np.prod(shape, dtype=np.int64)) * _TYPE.itemsize
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PlanError(f"its codes are not base64 text: {error}") from error
    unpacker = zlib.decompressobj()
    try:
        # No more than needed, whatever the text claims to hold.
        raw = unpacker.decompress(packed, expected + 1)
    except zlib.error as error:
        raise PlanError(f"its codes are damaged: {error}") from error
    if len(raw) <= expected and (not unpacker.eof or unpacker.unused_data):
        raise PlanError("its codes are damaged: they end too early, or too late")
    if len(raw) != expected:
        size = f"{len(raw) // _TYPE.itemsize}" if len(raw) < expected else "more"
        wanted = "×".join(str(n) for n in shape)
        raise PlanError(
            f"it has codes for {size} weights, and the layer has {wanted}; "
            "was the plan made for another model?"
        )
    return np.frombuffer(raw, dtype=_TYPE).astype(np.float64).reshape(shape) / 2.0
