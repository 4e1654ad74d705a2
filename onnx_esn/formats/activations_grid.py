"""Scale and zero point of an activation: x ≈ scale·(q − zero point)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

# Any scale holds zeros; the bias of a layer that reads them is a multiple of it.
_OF_ZEROS = 2.0**-16


@dataclass(frozen=True)
class Kind:
    """An integer type for activations.

    Attributes:
        name: as users write it.
        type: `TensorProto.DataType` of what is stored.
        low: smallest integer.
        high: largest integer; where the type goes further, a Clip holds the tensor back.
        symmetric: whether its zero point is 0, as 16-bit kernels of other runtimes ask for.
        opset: the first operator set whose QuantizeLinear knows it per tensor, with a
            DequantizeLinear per axis for the weights.
    """

    name: str
    type: int
    low: int
    high: int
    symmetric: bool
    opset: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is stored."""
        return helper.tensor_dtype_to_np_dtype(self.type)

    @property
    def narrow(self) -> bool:
        """Whether it has fewer integers than its type."""
        return self.high < int(np.iinfo(self.dtype).max)


def _unsigned(bits: int) -> Kind:
    return Kind(f"uint{bits}", TensorProto.UINT8, 0, 2**bits - 1, False, 13)


KINDS = {
    "int8": Kind("int8", TensorProto.INT8, -128, 127, False, 13),
    "int16": Kind("int16", TensorProto.INT16, -32768, 32767, True, 21),
    **{kind.name: kind for kind in (_unsigned(bits) for bits in range(8, 1, -1))},
}


@dataclass(frozen=True)
class ActivationGrid:
    """Scale (a float32 value) and zero point of one tensor."""

    scale: float
    zero: int

    def arrays(self, kind: Kind) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
        """Both as stored."""
        return np.array(self.scale, np.float32), np.array(self.zero, kind.dtype)

    def ends(self, kind: Kind) -> tuple[float, float]:
        """The least and the greatest value that it can write."""
        return self.scale * (kind.low - self.zero), self.scale * (kind.high - self.zero)


def activation_grid(low: float, high: float, kind: Kind) -> ActivationGrid:
    """The grid that covers a range, which is widened to hold 0 exactly.

    The largest value it can write does not exceed `high` where the range begins at 0: a Clip that
    ends there then clips nothing, and runtimes drop it.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if kind.symmetric:
        low, high = -max(-low, high), max(-low, high)
        steps = 2 * kind.high
    else:
        steps = kind.high - kind.low
    scale = np.float32((high - low) / steps)
    if not scale >= np.finfo(np.float32).tiny:  # always 0, or next to it
        return ActivationGrid(_OF_ZEROS, 0 if kind.symmetric else kind.low)
    if low == 0 and np.float32(steps) * scale > np.float32(high):
        scale = np.nextafter(scale, np.float32(0))
    zero = 0 if kind.symmetric else kind.low + int(np.rint(-low / float(scale)))
    return ActivationGrid(float(scale), int(np.clip(zero, kind.low, kind.high)))
