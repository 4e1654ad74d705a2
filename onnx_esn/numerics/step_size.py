"""The step Δ of minimum squared error for each filter, found by an exact sweep.

For given codes the best step is Δ = P/Q with P = Σ c|w|, Q = Σ c² (c = |W_int|), and the error
that remains is ‖W‖² − P²/Q. With codes a, a + 1, …, a + R (R = 2^(b-1) − 1; a = ½ mid-rise, a = 0
mid-tread), as Δ falls from +∞ the code of a weight goes up by one at each breakpoint
Δ = |w|/(k − ½ + a), k = 1 … R: P grows by |w| and Q by 2k − 1 + 2a. Sorting the breakpoints of a
filter and taking two cumulative sums therefore visits *every* assignment of codes that any step can
produce; the largest P²/Q is the global optimum.

`step_search` finds it without visiting all of them.

Why nothing is lost on the way from b to b+1 bits: with the same Δ the levels of b bits are among
those of b+1, so that the error cannot grow. `step_for_all_bits` keeps the step of b bits where the
sweep at b+1 does not beat it. And why no optimal step prunes a filter (all |w| < Δ/2): as |c| ≥ 1/2
implies |c| ≤ 2c², Δ = P/Q ≤ 2·max|w|, with rounding errors clamped; as integers |c| ≤ c², no
mid-tread step is above max|w|.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import MAX_BITS, Floats, decode, finite, top_code
from onnx_esn.numerics.step_search import (
    MID_RISE,
    MID_TREAD,
    TIE,
    Levels,
    Search,
    chunks,
    normalised,
)

__all__ = [
    "MID_RISE",
    "MID_TREAD",
    "Levels",
    "further_bits",
    "optimal_step",
    "squared_error",
    "step_for_all_bits",
]


def optimal_step(W: npt.ArrayLike, bits: npt.ArrayLike, levels: Levels = MID_RISE) -> Floats:
    """Return the Δ (M,) that minimises ‖W − Ŵ‖² of each filter of W (M, K).

    bits is 0..8, a scalar or (M,). The step is 0 for 0 bits and for an all-zero filter. One bit
    has the closed form Δ = 2·mean|w|; mid-tread it has no level but 0, and the step is 0.

    Raises:
        VerificationError: a weight is not finite.
    """
    W = finite(W, "weight")
    b = np.broadcast_to(np.asarray(bits, dtype=np.int64), W.shape[:1])
    top_code(b)  # range check
    step = np.zeros(W.shape[0])
    for width in np.unique(b[b > 0]).tolist():
        for rows in chunks(np.flatnonzero(b == width), W.shape[1], [width]):
            A, exponent = normalised(W[rows])
            step[rows] = np.ldexp(Search(A, [width], levels).best(width)[0], exponent)
    return step


def step_for_all_bits(W: npt.ArrayLike, levels: Levels = MID_RISE) -> tuple[Floats, Floats]:
    """Return the steps (M, 9) and the squared errors (M, 9) of W (M, K) at b = 0 … 8 bits.

    Column 0 is step 0 and error ‖W‖². The errors never increase from one column to the next, and
    are equal where a bit more gains less than 1e-12 of ‖W‖², so that rounding noise buys no bits.
    """
    W = finite(W, "weight")
    steps, errors = np.zeros((W.shape[0], 1)), np.einsum("mk,mk->m", W, W)[:, None]
    return further_bits(W, steps, errors, MAX_BITS, levels)


def further_bits(
    W: npt.ArrayLike, steps: Floats, errors: Floats, most: int, levels: Levels = MID_RISE
) -> tuple[Floats, Floats]:
    """The steps and squared errors of `step_for_all_bits` (M, most + 1) from the first ones on.

    Args:
        W: (M, K).
        steps, errors: (M, b + 1), those of 0 … b bits.
        most: up to how many bits.
        levels: of the quantizer.
    """
    W = finite(W, "weight")
    known = steps.shape[1]
    more = np.zeros((W.shape[0], max(0, most + 1 - known)))
    steps, errors = np.concatenate([steps, more], axis=1), np.concatenate([errors, more], axis=1)
    widths = list(range(known, most + 1))
    for rows in chunks(np.arange(W.shape[0]), W.shape[1], widths) if widths else ():
        A, exponent = normalised(W[rows])
        search = Search(A, widths, levels)
        step = np.ldexp(steps[rows], -exponent[:, None])
        left = np.ldexp(errors[rows], -2 * exponent[:, None])
        least_gain = TIE * np.einsum("mk,mk->m", A, A)
        for b in widths:
            (fresh, fresh_error), kept = search.best(b), step[:, b - 1]
            least = fresh_error
            if search.is_exact(b):  # the codes of the step of a bit less were among those visited
                better = fresh_error < left[:, b - 1] - least_gain
            else:
                kept_error = squared_error(A, kept, b, levels)
                better = fresh_error < kept_error - least_gain
                least = np.minimum(fresh_error, kept_error)
            step[:, b] = np.where(better, fresh, kept)
            gains = least < left[:, b - 1] - least_gain
            left[:, b] = np.where(gains, least, left[:, b - 1])
        steps[rows] = np.ldexp(step, exponent[:, None])
        errors[rows] = np.ldexp(left, 2 * exponent[:, None])
    return steps, errors


def squared_error(
    W: npt.ArrayLike, step: npt.ArrayLike, bits: npt.ArrayLike, levels: Levels = MID_RISE
) -> Floats:
    """Return ‖W − Ŵ‖² (M,) of each filter of W (M, K) at the steps Δ (M,) and bits."""
    W = np.asarray(W, dtype=np.float64)
    residual = W - decode(levels.encode(W, step, bits), step)
    return np.asarray(np.einsum("mk,mk->m", residual, residual))
