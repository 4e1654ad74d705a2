"""Filters on a mid-rise grid that is shifted: Ŵ = Δ·(W_int + o), one offset o per filter.

Bias correction moves a filter by a constant. The offset is a multiple of 2^-12 of the step: then
W_int + o is a number of 20 bits, exact in single precision, the product with Δ is the only one that
rounds, and codes, step and offset can be read back from the stored weights as those of plain grids
are (see `grid`). With an offset the difference between mid-rise and mid-tread is gone: half of a
step goes into it. The codes are the half-integers that lie most evenly around 0, which take the
fewest bits, ceil(log2(levels between the lowest and the highest)).

Reading them back: a filter fits a step (max − min)/n if all weights are whole steps above the
lowest, and if the offset comes out as a multiple of 2^-12. It is called shifted only where that is
more than coincidence; chances are counted as in `grid`, see `_evidence`. Less precise types than
single cannot tell an offset from rounding: nothing is found in them, and nothing should be written.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.grid import EVIDENCE_BITS
from onnx_esn.numerics.midrise import MAX_BITS, Floats

PARTS = 1 << 12  # an offset counts in steps / PARTS
LEAST_PRECISE = 2.0**-23  # epsilon of single precision
_MOST = (1 << MAX_BITS) - 1  # steps between the levels of eight bits
_GLANCE = 24  # weights of one filter: other floats are turned away here
_STEPS = np.arange(1.0, _MOST + 1)[:, None]


class ShiftedGrid(NamedTuple):
    """Where the filters of a layer lie: Ŵ = Δ·(W_int + o).

    Attributes:
        step: Δ (M,), 0 for a filter of zeros.
        codes: half-integers W_int (M, K), 0 in a filter of zeros; no −0.
        offset: o (M,), multiples of 1/`PARTS`.
    """

    step: Floats
    codes: Floats
    offset: Floats


def shifted_grid(codes: npt.ArrayLike, step: npt.ArrayLike, shift: npt.ArrayLike) -> ShiftedGrid:
    """Return the grid of the weights Δ·code + shift, the shift rounded to a part of a step.

    Args:
        codes: (M, K), whole numbers apart from each other within a filter, at most 255.
        step: Δ (M,), above 0 but for filters whose codes are all equal.
        shift: (M,), in the unit of the weights.

    A filter of equal weights has one bit, or none where they are 0. The offset is an odd number of
    parts, or 0: of an even one the weights could lie on a finer plain grid too.
    """
    k = np.asarray(codes, dtype=np.float64)
    delta, moved = np.array(step, dtype=np.float64), np.asarray(shift, dtype=np.float64)
    low = k.min(axis=1, keepdims=True)
    above = np.rint(k - low)
    common = np.gcd.reduce(above.astype(np.int64), axis=1)
    flat = common == 0
    value = delta * low[:, 0] + moved  # of the lowest level
    unit = np.where(flat, 2.0 * np.abs(value), delta * np.maximum(common, 1))
    above /= np.maximum(common, 1)[:, None]
    centred = above + _lowest_code(above.max(axis=1))[:, None]
    safe = np.where(unit > 0, unit, 1.0)
    parts = (value / safe - centred.min(axis=1)) * PARTS
    offset = (2.0 * np.floor(parts / 2.0) + 1.0) / PARTS
    offset = np.where(np.abs(parts) < 1.0 / 2, 0.0, offset)
    centred = np.where(flat[:, None], np.sign(value)[:, None] / 2, centred)
    return ShiftedGrid(unit, centred + 0.0, np.where(flat, 0.0, offset))


def as_shifted(codes: npt.ArrayLike, step: npt.ArrayLike) -> ShiftedGrid:
    """Return filters on a plain grid, Δ·W_int, as `detect_shifted` reads them beside shifted ones.

    That is in fewer bits where the codes (M, K) of a filter lie all on one side of 0.
    """
    k = np.array(codes, dtype=np.float64)
    delta, offset = np.array(step, dtype=np.float64), np.zeros(k.shape[0])
    for m, row in enumerate(k):
        above = row - row.min()
        common = int(np.gcd.reduce(np.rint(above).astype(np.int64)))
        if common == 0:
            k[m], delta[m] = np.sign(row) / 2, 2.0 * delta[m] * abs(row[0])
        for unit in range(common, 0, -1):
            centred = above / unit + _lowest_code(above.max(keepdims=True) / unit)
            parts = (row.min() / unit - centred.min()) * PARTS
            if common % unit == 0 and parts == np.rint(parts):
                k[m], delta[m], offset[m] = centred, delta[m] * unit, parts / PARTS
                break
    return ShiftedGrid(delta, k, offset)


def _lowest_code(span: Floats) -> Floats:
    """The lowest of half-integer codes (M,) that span whole steps around 0 as evenly as can be."""
    return np.asarray(-0.5 - np.floor(span / 2.0))


def shifted_values(grid: ShiftedGrid) -> Floats:
    """Return Δ·(W_int + o) (M, K), exact but for the product."""
    return np.asarray(grid.step[:, None] * (grid.codes + grid.offset[:, None]))


def detect_shifted(W: npt.ArrayLike, eps: float) -> ShiftedGrid | None:
    """Return the shifted grid that the filters W (M, K) lie on, None if there is none.

    W holds Δ·(W_int + o) rounded to a type of precision `eps`. All filters must fit, and together
    with evidence; plain grids are shifted ones too, so look for those first.
    """
    W = np.asarray(W)
    if eps > LEAST_PRECISE or not W.size or not _plausible(W, eps) or not np.isfinite(W).all():
        return None
    step, codes, offset = np.zeros(W.shape[0]), np.zeros(W.shape), np.zeros(W.shape[0])
    evidence = 0.0
    for m, row in enumerate(W):
        found = _fit(row.astype(np.float64), eps)
        if found is None:
            return None
        step[m], codes[m], offset[m], bits = found
        evidence += bits
    if evidence < EVIDENCE_BITS:
        return None
    return ShiftedGrid(step, codes, offset)


def _plausible(W: npt.NDArray[np.floating[Any]], eps: float) -> bool:
    """Whether the first uneven filter's first weights are whole steps apart. Never wrong where it
    says no: they span less than the filter does, and fit whatever step it has, in fewer steps."""
    first = W[:, :_GLANCE]
    uneven = np.flatnonzero(first.max(axis=1) > first.min(axis=1))
    if not uneven.size:
        return True
    row, whole = (part[uneven[0]].astype(np.float64) for part in (first, W))
    if not np.isfinite(whole).all():
        return False
    ratio = (row - row.min()) / (row.max() - row.min()) * _STEPS
    tolerance = 2.0 * _error(whole, eps) / (row.max() - row.min()) * _STEPS
    return bool((np.abs(ratio - np.rint(ratio)) <= tolerance).all(axis=1).any())


def _error(row: Floats, eps: float) -> float:
    """What the difference of two weights of a filter may be off: each was rounded once or twice."""
    return 2.0 * eps * float(np.abs(row).max())


def _fit(row: Floats, eps: float) -> tuple[float, Floats, float, float] | None:
    """Step, codes (K,), offset and bits of evidence of one filter (K,); None if nothing fits."""
    values, place, count = np.unique(row, return_inverse=True, return_counts=True)
    if values.size > _MOST + 1:
        return None
    repeats = float(row.size - values.size) * min(np.log2(values.size * eps), 0.0)
    if values.size == 1:
        value = float(values[0])
        bits = _evidence(-repeats) if value else 0.0
        return 2.0 * abs(value), np.full(row.shape, np.sign(value) / 2), 0.0, bits
    span = float(values[-1] - values[0])
    steps = _STEPS[max(values.size - 1, 1) - 1 :]
    error = _error(row, eps) / span * steps[:, 0]
    ratio = (values - values[0]) / span * steps
    fits = (np.abs(ratio - np.rint(ratio)) <= error[:, None]).all(axis=1)
    # The step is known to within a part of the span, and so is how far the lowest level lies.
    away = error * (1.0 + abs(float(values[0])) / span)
    # Of n steps, what fits by chance: the weights between the ends, then the offset.
    inside = np.minimum(2.0 * error, 1.0) ** (values.size - 2)
    chance = np.cumsum(inside * np.minimum(2.0 * away * PARTS, 1.0))
    for i in np.flatnonzero(fits):
        above = np.rint(ratio[i])
        code = float(_lowest_code(above[-1:])[0])
        lowest = _lowest_level(above, values, count) - code
        offset = float(np.rint(lowest * PARTS) / PARTS)
        if abs(lowest - offset) <= away[i]:
            multiples = above + code + offset
            weighted = multiples * count
            step = float((weighted * values).sum() / (weighted * multiples).sum())
            fitted = -repeats - float(np.log2(np.clip(chance[i], 1e-300, 1.0)))
            return step, (above + code)[place.reshape(row.shape)], offset, _evidence(fitted)
    return None


def _evidence(bits: float) -> float:
    """What a filter that fits by chance once in 2^bits adds to the layer's evidence.

    Each filter takes the first step that fits, and so has 1.4 bits by chance alone. 1/(2·√p) of a
    probability p is 1 on average, and so is the product over filters: it exceeds 2^24 by chance
    once in 2^24 layers.
    """
    return bits / 2.0 - 1.0


def _lowest_level(above: Floats, values: Floats, count: Integers) -> float:
    """The lowest level in steps from 0, on the least-squares line through the levels."""
    middle, mean = np.average(above, weights=count), np.average(values, weights=count)
    weighted = (above - middle) * count
    step = (weighted * (values - mean)).sum() / (weighted * (above - middle)).sum()
    return float(mean / step - middle)
