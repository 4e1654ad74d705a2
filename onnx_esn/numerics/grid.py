"""Recognising weights that already lie on a grid, without side files.

A filter lies on the mid-rise grid of step Δ where every weight is an odd multiple of Δ/2 (and none
beyond ±127.5·Δ, eight bits), on the mid-tread grid where every weight is a multiple of Δ, 0 among
them (and none beyond ±127·Δ), or on either where all are zero. Its *canonical* step is the largest
such Δ.

Where all filters of a layer fit both, the layer is mid-rise: odd multiples of u alone are the
codes ±0.5, ±1.5, … of a mid-rise step 2u, which take a bit less than the codes ±1, ±3, … of a
mid-tread step u. What the mid-tread quantizer makes is read as mid-rise in that case only: no zero
and no even code in the whole layer (up to a common factor in a filter).

The stored weights are rounded, and any single number lies on some grid, so a fit is not yet
evidence. We count how many bits of coincidence it would take in a layer of arbitrary floats:

- a magnitude that is not the filter's largest fits by chance with probability p ≈ width of the
  tolerance interval / spacing of the multiples;
- the largest one chose the step: that cost log2 of the number of steps tried;
- a repeated magnitude happens by chance with probability ≈ distinct magnitudes · eps;
- zeros are no evidence: they fit every step, and sparse floats have them.

The layer is called quantized only where the sum over its filters exceeds `EVIDENCE_BITS`. It is
unreachable by fitting a filter of one weight, and a filter of four float32 weights at eight bits
passes it with more than ten bits to spare. In bfloat16 eight-bit codes are never evidence: the
tolerance is as wide as the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import MAX_BITS, Floats
from onnx_esn.numerics.quantizers import MID_RISE, MID_TREAD
from onnx_esn.numerics.row_blocks import Reals, all_finite

EVIDENCE_BITS = 24.0
_LEVELS = 1 << (MAX_BITS - 1)  # magnitudes of an eight-bit filter
_CHUNK = 1 << 20
_FIRST_LOOK = 16  # filters: a float layer is turned away here
_GLANCE = 16  # weights of one filter: most float layers are turned away here already
# What rounds to a subnormal number has lost its relative precision. Smallest subnormal by eps:
_SUBNORMAL = {2.0**-10: 2.0**-24, 2.0**-7: 2.0**-133, 2.0**-23: 2.0**-149, 2.0**-52: 2.0**-1074}


class Grid(NamedTuple):
    """Where the filters of a layer lie: Ŵ = Δ·W_int.

    Attributes:
        step: canonical steps Δ (M,), 0 for a filter of zeros.
        codes: W_int (M, K), half-integers or integers; no −0.
        quantizer: which of the two, by its name in `QUANTIZERS`.
    """

    step: Floats
    codes: Floats
    quantizer: str


class HalfGrid(NamedTuple):
    """A `Grid` in a quarter of the memory.

    Attributes:
        step: as there.
        halves: 2·W_int (M, K), which is an integer on either grid.
        quantizer: as there.
    """

    step: Floats
    halves: npt.NDArray[np.int16]
    quantizer: str


@dataclass(frozen=True)
class _Multiples:
    """The magnitudes of a grid as multiples n of a unit u: 1, 1 + spacing, … up to `most`.

    Δ = spacing·u, and codes are n/spacing.
    """

    quantizer: str
    spacing: int
    most: int
    zeros: bool

    def nearest(self, ratio: Floats) -> Floats:
        """Return the multiple next to each ratio |w|/u; 0 only if there are zeros."""
        if self.spacing == 2:
            return np.asarray(2.0 * np.floor(ratio / 2.0) + 1.0)
        return np.asarray(np.rint(ratio))


_GRIDS = (
    _Multiples(MID_RISE.name, 2, 2 * _LEVELS - 1, zeros=False),
    _Multiples(MID_TREAD.name, 1, _LEVELS - 1, zeros=True),
)
_ANY_MULTIPLE = np.arange(1.0, 2 * _LEVELS)[:, None]


def detect_grid(W: npt.ArrayLike, eps: float) -> Grid | None:
    """Return the grid that the filters W (M, K) lie on, None if there is none.

    W holds Δ·W_int rounded to a type of precision `eps` (np.finfo(dtype).eps; 2^-7 for bfloat16).
    All filters must fit, and together with evidence (see the module's text); a layer of zeros only
    is None.
    """
    found = detect_halves(np.asarray(W, dtype=np.float64), eps)
    return None if found is None else Grid(found.step, found.halves / 2.0, found.quantizer)


def detect_halves(W: Reals, eps: float) -> HalfGrid | None:
    """The same of filters (M, K) of any float type, a block of them in float64 at a time."""
    if not W.size or not all_finite(W) or not _plausible(W, eps):
        return None
    for multiples in _GRIDS:
        found = _detect(W, eps, multiples)
        if found is not None:
            return found
    return None


def _plausible(W: Reals, eps: float) -> bool:
    """Whether the first filter's first weights are multiples of anything. Cheap, and never wrong
    where it says no: its tolerance is twice that of the fit."""
    live = np.flatnonzero((W[:_FIRST_LOOK] != 0).any(axis=1))
    if not live.size:
        return True
    A = np.abs(W[live[0]].astype(np.float64))
    peak = A.max()
    ratio = A[:_GLANCE] / peak * _ANY_MULTIPLE
    tolerance = 2.0 * (ratio * eps + _SUBNORMAL.get(float(eps), 0.0) / peak * _ANY_MULTIPLE)
    return bool((np.abs(ratio - np.rint(ratio)) <= tolerance).all(axis=1).any())


def _detect(W: Reals, eps: float, multiples: _Multiples) -> HalfGrid | None:
    M, K = W.shape
    step, evidence = np.zeros(M), 0.0
    halves: npt.NDArray[np.int16] | None = None
    first, size = 0, _FIRST_LOOK
    while first < M:
        rows = slice(first, first + size)
        signed = W[rows].astype(np.float64)
        A = np.abs(signed)
        fit = _fit_filters(A, eps, multiples)
        if fit is None:
            return None
        step[rows], found = fit
        evidence += found
        live = step[rows] > 0
        unit = step[rows][live, None] / multiples.spacing
        # A code at the edge of tolerance cannot be another's.
        n = np.minimum(multiples.nearest(A[live] / unit), multiples.most)
        if halves is None:  # once the first filters have passed: most float layers do not
            halves = np.zeros((M, K), np.int16)
        halves[rows][live] = np.copysign(n, signed[live]) * (2 // multiples.spacing)
        first, size = first + size, max(_FIRST_LOOK, _CHUNK // K)
    if halves is None or evidence < EVIDENCE_BITS:
        return None
    return HalfGrid(step, halves, multiples.quantizer)


def _fit_filters(A: Floats, eps: float, multiples: _Multiples) -> tuple[Floats, float] | None:
    """Return the canonical steps (m,) of the magnitudes A (m, K) and the evidence in bits."""
    peak = A.max(axis=1)
    live = peak > 0
    step = np.zeros(A.shape[0])
    if not live.any():
        return step, 0.0
    A, peak = A[live], peak[live]
    zero = A == 0
    zeros = zero.sum(axis=1)
    if zeros.any():
        if not multiples.zeros:
            return None
        A = np.where(zero, peak[:, None], A)  # the largest carries no evidence, nor do zeros
    magnitudes, count = _distinct(np.sort(A, axis=1))
    if magnitudes is None:
        return None
    tiny = _SUBNORMAL.get(float(eps), 0.0)
    found, evidence = _canonical(magnitudes, peak, eps, tiny, multiples)
    if found is None:
        return None
    repeats = A.shape[1] - zeros - count
    evidence -= float((repeats * np.minimum(np.log2(count * eps), 0.0)).sum())
    step[live] = found
    return step, evidence


def _distinct(ordered: Floats) -> tuple[Floats | None, npt.NDArray[np.int64]]:
    """Return the distinct values of each sorted row, padded with its largest, and their number.

    None where a row has more than an eight-bit filter can have.
    """
    new = np.ones(ordered.shape, dtype=bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=new[:, 1:])
    count = new.sum(axis=1)
    width = int(count.max())
    if width > _LEVELS:
        return None, count
    values = np.repeat(ordered[:, -1:], width, axis=1)
    values[np.arange(width) < count[:, None]] = ordered[new]
    return values, count


def _canonical(
    values: Floats, peak: Floats, eps: float, tiny: float, multiples: _Multiples
) -> tuple[Floats | None, float]:
    """Return the largest Δ (m,) on whose grid all values (m, d) lie, and the evidence in bits.

    The peak is the multiple n = 1, 1 + spacing, … of the unit, tried in this order; values equal to
    the peak are padding and carry no evidence. None where a row fits no n.
    """
    spacing = multiples.spacing
    step, evidence = np.zeros(peak.shape), 0.0
    open_rows = np.arange(peak.size)
    for n in range(1, multiples.most + 1, spacing):
        v, unit = values[open_rows], (peak[open_rows] / n)[:, None]
        ratio = v / unit
        nearest = np.maximum(multiples.nearest(ratio), 1.0)
        # Both a weight and the peak are off by half an ulp, eps/2 or half the smallest subnormal.
        tolerance = ratio * eps * (1.0 + 1e-6) + tiny / unit
        fits = (np.abs(ratio - nearest) <= tolerance).all(axis=1)
        if not fits.any():
            continue
        v, nearest = v[fits], nearest[fits]
        chance = 2.0 * tolerance[fits] / spacing
        chance = np.where(v < peak[open_rows[fits], None], np.minimum(chance, 1.0), 1.0)
        tries = (n - 1) // spacing + 1
        evidence -= float(np.log2(chance).sum()) + fits.sum() * float(np.log2(tries))
        # Least squares over the distinct values halves the rounding error of the peak alone.
        least_squares = (v * nearest).sum(axis=1) / (nearest * nearest).sum(axis=1)
        step[open_rows[fits]] = spacing * least_squares
        open_rows = open_rows[~fits]
        if not open_rows.size:
            return step, evidence
    return None, 0.0
