"""The step Δ of minimum squared error for each filter, found by an exact sweep.

For given codes the best step is Δ = P/Q with P = Σ c|w|, Q = Σ c² (c = |W_int|), and the error
that remains is ‖W‖² − P²/Q. With codes a, a + 1, …, a + R (R = 2^(b-1) − 1; a = ½ mid-rise, a = 0
mid-tread), as Δ falls from +∞ the code of a weight goes up by one at each breakpoint
Δ = |w|/(k − ½ + a), k = 1 … R: P grows by |w| and Q by 2k − 1 + 2a. Sorting the breakpoints of a
filter and taking two cumulative sums therefore visits *every* assignment of codes that any step can
produce; the largest P²/Q is the global optimum.

Where a filter has many breakpoints, `step_cells` rules out most of the range by bounds, at up to
five bits. Above that the bounds are weak, and a coarse geometric grid of steps narrows the sweep to
a window around the best ones. The error is a smooth curve in Δ with a ripple of about 0.9/√K of it
(the mean square of K rounding errors); whatever the grid finds within five times that of the best
stays in the window, with one grid point more on each side. A filter of many weights that already
lies on a coarser grid is the exception: its step is a dip too narrow to be seen; `grid.detect_grid`
finds it.

Why nothing is lost on the way from b to b+1 bits: with the same Δ the levels of b bits are among
those of b+1, so that the error cannot grow. `step_for_all_bits` keeps the step of b bits where the
sweep at b+1 does not beat it. And why no optimal step prunes a filter (all |w| < Δ/2): as |c| ≥ 1/2
implies |c| ≤ 2c², Δ = P/Q ≤ 2·max|w|, with rounding errors clamped; as integers |c| ≤ c², no
mid-tread step is above max|w|.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics import midrise, midtread
from onnx_esn.numerics.midrise import MAX_BITS, Floats, decode, finite, top_code
from onnx_esn.numerics.step_cells import best_steps, breakpoints, sort_keys, table_size

_FEW_BREAKPOINTS = 512  # a filter with no more is swept over its whole range
_EXACT_BREAKPOINTS = 8192  # one with no more is never given a window
_BOUNDED_RISES = 15  # up to 5 bits
_COARSE_POINTS = 48
_RIPPLE = 5.0  # coarse errors up to 1 + 5/√K times the smallest stay in the window
_TIE = 1e-12  # of ‖W‖²: among equally good steps the largest is taken
_CHUNK = 1 << 16  # breakpoints at a time, so that temporaries stay in the cache
_IN_WINDOW = 4  # breakpoints of a weight that a window holds, roughly


@dataclass(frozen=True)
class Levels:
    """What a sweep has to know of a quantizer.

    Attributes:
        lowest: the smallest magnitude of its codes, ½ or 0.
        least: the smallest one above 0, ½ or 1.
        encode: (W (M, K), step (M,), bits) → codes W_int (M, K).
    """

    lowest: float
    least: float
    encode: Callable[[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike], Floats]


MID_RISE = Levels(0.5, 0.5, midrise.encode)
MID_TREAD = Levels(0.0, 1.0, midtread.encode)


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
        for rows in _chunks(np.flatnonzero(b == width), W.shape[1], width):
            A, exponent = _normalised(W[rows])
            step[rows] = np.ldexp(_best_step(A, width, levels), exponent)
    return step


def step_for_all_bits(W: npt.ArrayLike, levels: Levels = MID_RISE) -> tuple[Floats, Floats]:
    """Return the steps (M, 9) and the squared errors (M, 9) of W (M, K) at b = 0 … 8 bits.

    Column 0 is step 0 and error ‖W‖². The errors never increase from one column to the next, and
    are equal where a bit more gains less than 1e-12 of ‖W‖², so that rounding noise buys no bits.
    """
    W = finite(W, "weight")
    M, K = W.shape
    steps, errors = (np.zeros((M, MAX_BITS + 1)) for _ in range(2))
    for rows in _chunks(np.arange(M), K, MAX_BITS):
        A, exponent = _normalised(W[rows])
        step, left = (np.zeros((rows.size, MAX_BITS + 1)) for _ in range(2))
        left[:, 0] = np.einsum("mk,mk->m", A, A)
        for b in range(1, MAX_BITS + 1):
            fresh, kept = _best_step(A, b, levels), step[:, b - 1]
            fresh_error, kept_error = (squared_error(A, d, b, levels) for d in (fresh, kept))
            step[:, b] = np.where(fresh_error < kept_error - _TIE * left[:, 0], fresh, kept)
            least = np.minimum(fresh_error, kept_error)
            gains = least < left[:, b - 1] - _TIE * left[:, 0]
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


def _chunks(rows: npt.NDArray[np.intp], K: int, bits: int) -> Iterator[npt.NDArray[np.intp]]:
    rises = (1 << (bits - 1)) - 1
    numbers = K * rises  # at a time
    if _is_bounded(K, rises):
        numbers = table_size(K, rises)
    elif numbers > _EXACT_BREAKPOINTS:
        numbers = K * _IN_WINDOW
    size = max(1, _CHUNK // max(numbers, K, 1))
    return (rows[i : i + size] for i in range(0, rows.size, size))


def _is_bounded(K: int, rises: int) -> bool:
    """Whether `step_cells` rules out most of the sweep."""
    return rises <= _BOUNDED_RISES and K * rises > _FEW_BREAKPOINTS


def _normalised(W: Floats) -> tuple[Floats, npt.NDArray[np.int32]]:
    """Return |W|·2^-e with its largest value in [0.5, 1) for each filter, and e: exact."""
    A = np.abs(W)
    exponent = np.frexp(A.max(axis=1, initial=0.0))[1]
    return np.ldexp(A, -exponent[:, None]), exponent


def _best_step(A: Floats, bits: int, levels: Levels) -> Floats:
    """Return the best Δ (m,) of the magnitudes A (m, K); 0 where all are 0."""
    m, K = A.shape
    step = np.zeros(m)
    live = A.any(axis=1) if K else np.zeros(m, dtype=bool)
    rises = (1 << (bits - 1)) - 1
    top = rises + levels.lowest
    if not live.any() or top == 0:
        return step
    A = A if live.all() else A[live]
    peak, mean = A.max(axis=1), A.mean(axis=1)
    highest = peak / levels.least  # no Δ = P/Q is above it: |c| ≤ c²/least
    if rises == 0:
        best = mean / levels.lowest
    else:
        # Nor below this: c ≤ top grows with |w|, so P/Q ≥ mean|w|/top. The margins let breakpoints
        # at the very ends take part.
        low, high = mean / top * (1.0 - 1e-9), highest * (1.0 + 1e-9)
        found = None
        if _is_bounded(K, rises):
            found = best_steps(A, rises, levels.lowest, low, _TIE)
        if found is None:
            if K * rises > _EXACT_BREAKPOINTS:
                most = np.minimum(high, 4.0 * peak / (rises + 1))
                low, high = _window(A, rises, levels, low, most)
            found = _sweep(A, rises, levels.lowest, low, high)
        best = _polished(A, found, bits, levels)
    step[live] = np.minimum(best, highest)
    return step


def _window(
    A: Floats, rises: int, levels: Levels, low: Floats, high: Floats
) -> tuple[Floats, Floats]:
    """Narrow low, high (m,) to the neighbourhood of the best steps of a geometric grid."""
    ratio = np.linspace(0.0, 1.0, _COARSE_POINTS)
    grid = low[:, None] * (high / low)[:, None] ** ratio
    A32 = A.astype(np.float32)
    code, errors = np.empty_like(A32), np.empty(grid.shape)
    for j in range(_COARSE_POINTS):
        delta = grid[:, j, None].astype(np.float32)
        np.multiply(A32, 1 / delta, out=code)
        if levels.lowest == 0:
            code += np.float32(0.5)
        np.floor(code, out=code)
        np.minimum(code, rises, out=code)
        code += np.float32(levels.lowest)
        code *= delta
        code -= A32
        errors[:, j] = np.einsum("mk,mk->m", code, code)
    margin = 1.0 + _RIPPLE / np.sqrt(A.shape[1])
    near = errors <= margin * errors.min(axis=1, keepdims=True)
    first = np.maximum(near.argmax(axis=1) - 1, 0)
    last = np.minimum(_COARSE_POINTS - near[:, ::-1].argmax(axis=1), _COARSE_POINTS - 1)
    rows = np.arange(A.shape[0])
    return grid[rows, first], grid[rows, last]


def _sweep(A: Floats, rises: int, lowest: float, low: Floats, high: Floats) -> Floats:
    """Return the Δ = P/Q (m,) of the largest P²/Q over all codes met from Δ = high to low."""
    m = A.shape[0]
    up = 0.5 - lowest  # |w|/Δ + up, rounded down, is how often the code has risen
    below = np.minimum(np.floor(A / high[:, None] + up), rises)
    count = (np.minimum(np.floor(A / low[:, None] + up), rises) - below).astype(np.int64)
    c = below + lowest
    P0, Q0 = np.einsum("mk,mk->m", c, A), np.einsum("mk,mk->m", c, c)

    flat = count.ravel()
    start = np.cumsum(flat) - flat
    k = np.arange(flat.sum()) - np.repeat(start - below.ravel().astype(np.int64) - 1, flat)
    per_row = count.sum(axis=1)
    keys = np.zeros((m, int(per_row.max(initial=0))), dtype=np.int64)
    keys[np.arange(keys.shape[1]) < per_row[:, None]] = sort_keys(np.repeat(A.ravel(), flat), k, up)
    keys.sort(axis=1)
    w, rise = breakpoints(keys[:, ::-1], up)  # from the largest down; padding (k = 0) comes last
    P = np.cumsum(np.concatenate([P0[:, None], w], axis=1), axis=1)
    Q = np.cumsum(np.concatenate([Q0[:, None], 2.0 * rise], axis=1), axis=1)
    gain = np.divide(P * P, Q, out=np.zeros_like(P), where=Q > 0)  # Q = 0: no code has risen yet
    best = (gain >= gain.max(axis=1, keepdims=True) * (1.0 - _TIE)).argmax(axis=1)
    rows = np.arange(m)
    return np.asarray(P[rows, best] / Q[rows, best])


def _polished(A: Floats, step: Floats, bits: int, levels: Levels) -> Floats:
    """Return the step that fits the codes of `step` best, in full precision."""
    c = levels.encode(A, np.minimum(step, A.max(axis=1) / levels.least), bits)
    return np.asarray(np.einsum("mk,mk->m", c, A) / np.einsum("mk,mk->m", c, c))
