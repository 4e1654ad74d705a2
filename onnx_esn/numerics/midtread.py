"""The filter-wise mid-tread quantizer, for comparison: integers, and so a level at zero.

    W_int = round(W/Δ),   Ŵ = Δ·W_int

With b bits the 2^b − 1 levels are 0, ±1, …, ±(2^(b-1) − 1); what lies beyond is clipped to the
outermost one. The range is symmetric (no −2^(b-1)), so that a code and its negative have the same
width, `esn.bits`: 2 bits for ±1, 3 for ±2 and ±3, … 8 for ±64 … ±127. One bit is left with the zero
level alone, and means the same as 0 bits. Ties go to the even code, as in ONNX's QuantizeLinear.

Unlike a mid-rise filter, one of these may hold any number of zeros; where all codes are zero, as
they are where |W| ≤ Δ/2, the filter is pruned.

Source: the uniform quantizer with a zero level that "Prune or quantize? Strategy for
Pareto-optimally low-cost and accurate CNN" sets its mid-rise one against; the narrow range, the
ties and the step per filter are our choice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import VerificationError
from onnx_esn.numerics import midrise
from onnx_esn.numerics.midrise import Floats, finite


def top_code(bits: npt.ArrayLike) -> Floats:
    """Return the largest code of b bits, 2^(b-1) − 1 (0 for 0 bits), in the shape of `bits`."""
    return np.asarray(np.maximum(midrise.top_code(bits) - 0.5, 0.0))


def round_codes(x: npt.ArrayLike, top: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the codes round(x), clipped to ±top, of values x in units of Δ.

    Elementwise: `x` and `top` broadcast against each other. Nothing is checked. In float32 where
    both are, which changes no code.
    """
    return midrise.clipped(np.rint(x), top)


def encode(W: npt.ArrayLike, step: npt.ArrayLike, bits: npt.ArrayLike) -> Floats:
    """Return the codes W_int (M, K), integers in float64, of the weights W (M, K).

    step (M,) is Δ > 0, or 0 for a pruned filter; bits (M,) or a scalar is 0..8. All codes of a
    filter are 0 where its step is 0 or its bits are 0 or 1.

    Raises:
        VerificationError: a weight or a step is not finite, or a step is negative.
    """
    W = finite(W, "weight")
    delta = finite(step, "quantization step")
    if (delta < 0).any():
        raise VerificationError("a quantization step is negative")
    M = W.shape[0]
    top = np.broadcast_to(np.where(delta > 0, top_code(bits), 0.0), (M,))
    safe = np.broadcast_to(np.where(delta > 0, delta, 1.0), (M,))
    with np.errstate(over="ignore"):  # W/Δ beyond float64 is ±inf, which the clip maps right
        x = W / safe[:, None]
    return round_codes(x, top[:, None])
