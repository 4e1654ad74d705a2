"""The filter-wise mid-rise quantizer of the ESN paper, clipped to a number of bits.

    W_int = floor(W/Δ) + 0.5,   Ŵ = Δ·W_int

It has no zero level: with b bits the 2^b levels are ±0.5, ±1.5, …, ±(2^(b-1) − 0.5), and what
lies beyond is clipped to the outermost one. A filter whose weights all lie strictly within ±Δ/2
is *pruned*: its codes are 0, and so is its cost.

Source: "Prune or quantize? Strategy for Pareto-optimally low-cost and accurate CNN", appendix A;
the clipping and the step per filter are ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import VerificationError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MAX_BITS = 8


def top_code(bits: npt.ArrayLike) -> Floats:
    """Return the largest code of b bits, 2^(b-1) − 0.5 (0 for 0 bits), in the shape of `bits`."""
    b = np.asarray(bits, dtype=np.int64)
    if ((b < 0) | (b > MAX_BITS)).any():
        raise ValueError(f"bits must lie in 0..{MAX_BITS}, got {b.min()}..{b.max()}")
    return np.asarray(2.0 ** (b - 1.0) - 0.5)


def round_codes(x: npt.ArrayLike, top: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the codes floor(x) + 0.5, clipped to ±top, of values x in units of Δ.

    Elementwise: `x` and `top` broadcast against each other. Nothing is checked, and the pruned rule
    plays no part. A top of 0 gives 0. In float32 where both are, which changes no code.
    """
    return clipped(np.floor(x) + 0.5, top)


def clipped(code: npt.ArrayLike, top: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return codes, none beyond ±top and none of them −0."""
    limit = np.asarray(top)
    found = np.maximum(np.minimum(code, limit), -limit)
    found += 0.0
    return np.asarray(found)


def encode(
    W: npt.ArrayLike, step: npt.ArrayLike, bits: npt.ArrayLike, *, pruned_rule: bool = True
) -> Floats:
    """Return the codes W_int (M, K), half-integers in float64, of the weights W (M, K).

    step (M,) is Δ > 0, or 0 for a pruned filter; bits (M,) or a scalar is 0..8. All codes of a
    filter are 0 where its bits or its step are 0, where it is all zero, and, unless `pruned_rule`
    is off, where all its weights lie strictly within ±Δ/2.

    Raises:
        VerificationError: a weight or a step is not finite, or a step is negative.
    """
    W = np.asarray(W, dtype=np.float64)
    delta = finite(step, "quantization step")
    if (delta < 0).any():
        raise VerificationError("a quantization step is negative")
    peak = finite(_peak(W), "weight")  # NaN and infinity show in it
    M = W.shape[0]
    top = np.broadcast_to(top_code(bits), (M,))
    live = (np.broadcast_to(delta, (M,)) > 0) & (top > 0) & (peak > 0)
    if pruned_rule:
        live &= ~(peak < delta / 2)
    safe = np.where(live, delta, 1.0)[:, None]
    with np.errstate(over="ignore"):  # W/Δ beyond float64 is ±inf, which the clip below maps right
        W_int: Floats = np.divide(W, safe)
    np.floor(W_int, out=W_int)
    W_int += 0.5
    np.clip(W_int, -top[:, None], top[:, None], out=W_int)
    if not live.all():
        W_int[~live] = 0.0
    return W_int


def decode(W_int: npt.ArrayLike, step: npt.ArrayLike) -> Floats:
    """Return Ŵ = Δ·W_int (M, K) of the codes W_int (M, K) and the steps Δ (M,)."""
    delta = np.asarray(step, dtype=np.float64)
    return np.asarray(W_int, dtype=np.float64) * delta.reshape(-1, 1)


def pruned_by_step(W: npt.ArrayLike, step: npt.ArrayLike) -> Bools:
    """Return which filters (M,) the paper's rule prunes: all |W| < Δ/2, strictly, or all zero.

    The comparison is strict, so that a filter of constant magnitude a at its best one-bit step
    Δ = 2a is kept. A step of minimum squared error never prunes a filter that is not all zero
    (see `step_size`).
    """
    peak = _peak(np.asarray(W, dtype=np.float64))
    return np.asarray((peak < np.asarray(step, dtype=np.float64) / 2) | (peak == 0))


def _peak(W: Floats) -> Floats:
    return np.asarray(np.maximum(W.max(axis=1, initial=0.0), -W.min(axis=1, initial=0.0)))


def finite(values: npt.ArrayLike, what: str) -> Floats:
    """Return the values in float64; VerificationError naming `what` if one is NaN or infinite."""
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise VerificationError(f"a {what} is not finite (NaN or infinity)")
    return array
