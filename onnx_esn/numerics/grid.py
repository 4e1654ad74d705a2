"""Recognising weights that already lie on a mid-rise grid, without side files.

A filter lies on the grid of step Δ where every weight is an odd multiple of Δ/2 (and none beyond
±127.5·Δ, eight bits), or where all are zero. Its *canonical* step is the largest such Δ.

The stored weights are rounded, and any single number lies on some grid, so a fit is not yet
evidence. We count how many bits of coincidence it would take in a layer of arbitrary floats:

- a magnitude that is not the filter's largest fits by chance with probability p ≈ width of the
  tolerance interval / spacing of the odd multiples;
- the largest one chose the step: that cost log2 of the number of steps tried;
- a repeated magnitude happens by chance with probability ≈ distinct magnitudes · eps.

The layer is called quantized only where the sum over its filters exceeds `EVIDENCE_BITS`. It is
unreachable by fitting a filter of one weight, and a filter of four float32 weights at eight bits
passes it with more than ten bits to spare. In bfloat16 eight-bit codes are never evidence: the
tolerance is as wide as the grid.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import MAX_BITS, Floats

EVIDENCE_BITS = 24.0
_LEVELS = 1 << (MAX_BITS - 1)  # magnitudes of an eight-bit filter
_MAX_ODD = 2 * _LEVELS - 1  # 2·127.5
_CHUNK = 1 << 20
_FIRST_LOOK = 16  # filters: a float layer is turned away here
# What rounds to a subnormal number has lost its relative precision. Smallest subnormal by eps:
_SUBNORMAL = {2.0**-10: 2.0**-24, 2.0**-7: 2.0**-133, 2.0**-23: 2.0**-149, 2.0**-52: 2.0**-1074}


def detect_grid(W: npt.ArrayLike, eps: float) -> tuple[Floats, Floats] | None:
    """Return the canonical steps Δ (M,) and codes W_int (M, K) of W (M, K), None if it has none.

    W holds Δ·W_int rounded to a type of precision `eps` (np.finfo(dtype).eps; 2^-7 for bfloat16).
    An all-zero filter has step 0 and codes 0. All filters must fit, and together with evidence
    (see the module's text); a layer of zeros only is None.
    """
    W = np.asarray(W, dtype=np.float64)
    M, K = W.shape
    step, W_int, evidence = np.zeros(M), np.zeros((M, K)), 0.0
    if not W.size or not np.isfinite(W).all():
        return None
    first, size = 0, _FIRST_LOOK
    while first < M:
        rows = slice(first, first + size)
        A = np.abs(W[rows])
        fit = _fit_filters(A, eps)
        if fit is None:
            return None
        step[rows], found = fit
        evidence += found
        live = step[rows] > 0
        # The nearest odd multiple of Δ/2; a code at the edge of tolerance cannot be another's.
        W_int[rows][live] = np.floor(A[live] / step[rows][live, None]) + 0.5
        first, size = first + size, max(_FIRST_LOOK, _CHUNK // K)
    if evidence < EVIDENCE_BITS:
        return None
    np.minimum(W_int, _MAX_ODD / 2, out=W_int)
    return step, np.copysign(W_int, W) + 0.0  # no −0


def _fit_filters(A: Floats, eps: float) -> tuple[Floats, float] | None:
    """Return the canonical steps (m,) of the magnitudes A (m, K) and the evidence in bits."""
    peak = A.max(axis=1)
    live = peak > 0
    step = np.zeros(A.shape[0])
    if not live.any():
        return step, 0.0
    ordered = np.sort(A[live], axis=1)
    if (ordered[:, 0] == 0).any():
        return None  # the mid-rise grid has no zero
    magnitudes, count = _distinct(ordered)
    if magnitudes is None:
        return None
    tiny = _SUBNORMAL.get(float(eps), 0.0)
    found, evidence = _canonical(magnitudes, peak[live], eps, tiny)
    if found is None:
        return None
    repeats = A.shape[1] - count
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
    values: Floats, peak: Floats, eps: float, tiny: float
) -> tuple[Floats | None, float]:
    """Return the largest Δ (m,) of which all values (m, d) are odd multiples of Δ/2, and evidence.

    The peak is the odd multiple n = 1, 3, …, 255 of Δ/2, tried in this order; values equal to
    the peak are padding and carry no evidence. None where a row fits no n.
    """
    step, evidence = np.zeros(peak.shape), 0.0
    open_rows = np.arange(peak.size)
    for n in range(1, _MAX_ODD + 1, 2):
        v, half = values[open_rows], (peak[open_rows] / n)[:, None]  # half = Δ/2
        ratio = v / half
        odd = 2.0 * np.floor(ratio / 2.0) + 1.0
        # Both a weight and the peak are off by half an ulp, eps/2 or half the smallest subnormal.
        tolerance = ratio * eps * (1.0 + 1e-6) + tiny / half
        fits = (np.abs(ratio - odd) <= tolerance).all(axis=1)
        if not fits.any():
            continue
        v, odd = v[fits], odd[fits]
        chance = np.minimum(np.where(v < peak[open_rows[fits], None], tolerance[fits], 1.0), 1.0)
        evidence -= float(np.log2(chance).sum()) + fits.sum() * float(np.log2((n + 1) / 2))
        # Least squares over the distinct values halves the rounding error of the peak alone.
        step[open_rows[fits]] = 2.0 * (v * odd).sum(axis=1) / (odd * odd).sum(axis=1)
        open_rows = open_rows[~fits]
        if not open_rows.size:
            return step, evidence
    return None, 0.0
