"""How far second moments of a few images are to be trusted when codes are chosen by them.

Compensated rounding hides the error of each weight where the inputs show little of it. Moments of
few images claim that of many directions in which other images do show something: the last layer of
a classifier sees one position of each image. A share δ of the mean diagonal on top of H makes all
directions count; δ is found by rounding some filters on one half of the samples and judging them
on the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.compensation import DAMPING, FACTORS, MANY, compensated_codes, inputs
from onnx_esn.numerics.cross_moments import CrossMoments, quadratic, refit
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer

DAMPINGS = (DAMPING, 1e-2, 1e-1, 1.0)
# Of layers with many inputs, where each candidate takes seconds, fewer are tried, one way round.
_FEW = (1e-2, 0.3)
_FILTERS = 32  # that are rounded for it
_FACTORS = FACTORS[2:10:3]
# Halves know less than all samples: a stronger one has to be better by more than this share.
_DOUBT = 0.02


def choose_damping(
    halves: tuple[CrossMoments, CrossMoments],
    W0: Floats,
    ridge: float,
    bits: npt.ArrayLike,
    quantizer: Quantizer = MID_RISE,
) -> float:
    """The δ whose codes, found on either half of the samples, serve the other one best.

    Args:
        halves: moments of inputs and wanted outputs.
        W0: the given weights (G, m, d), of which `refit` makes those to be rounded.
        ridge: λ of that.
        bits: of each filter, (G, m) or a scalar.
        quantizer: the grid.
    """
    if not all(half.count for half in halves):
        return DAMPING
    G, m, d = W0.shape
    some = _spread(G, _FILTERS), _spread(m, max(1, _FILTERS // G))
    b = np.broadcast_to(np.asarray(bits, np.int64), (G, m))[np.ix_(*some)]
    candidates, ways = (DAMPINGS, 2) if d <= MANY else (_FEW, 1)
    errors = np.zeros(len(candidates))
    for fitted, judged in ((0, 1), (1, 0))[:ways]:
        target, H = _refitted(halves[fitted], W0, ridge, some)
        C, H_judged = halves[judged].C[np.ix_(*some)], halves[judged].H[some[0]]
        for i, damping in enumerate(candidates):
            codes, step = compensated_codes(
                target,
                inputs(H, damping),
                b,
                quantizer=quantizer,
                factors=_FACTORS,
                sweeps=1,
                survivors=1,
            )
            V = codes * step[..., None]
            # E(y − Vx)², of which E y² is added below.
            errors[i] += float((quadratic(V, H_judged) - 2 * (V * C).sum(axis=2)).sum())
        errors += float((halves[judged].yy[np.ix_(*some)] / halves[judged].count).sum())
    # None is good where numbers are too large for their type.
    good = errors <= (1 + _DOUBT) * errors.min()
    return min((c for c, g in zip(candidates, good, strict=True) if g), default=DAMPING)


def _refitted(
    moments: CrossMoments, W0: Floats, ridge: float, some: Sequence[npt.NDArray[np.intp]]
) -> tuple[Floats, Floats]:
    """Weights of some filters refitted to one half of the samples, and the moments."""
    groups, filters = some
    part = CrossMoments(
        moments.count,
        moments.x_mean[groups],
        moments.y_mean[np.ix_(groups, filters)],
        moments.xx[groups],
        moments.yx[np.ix_(groups, filters)],
        moments.yy[np.ix_(groups, filters)],
    )
    return refit(part, W0[np.ix_(groups, filters)], ridge), part.H


def _spread(count: int, most: int) -> npt.NDArray[np.intp]:
    """At most so many of 0 … count − 1, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp))
