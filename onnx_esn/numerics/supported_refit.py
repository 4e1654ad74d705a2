"""Weights refitted where some of them have to stay zero.

The ridge regression of `cross_moments.refit`, filter by filter, over the weights S that a filter
may have:

    W_S = W₀_S + (C − W₀H)_S (H_SS + λD)⁻¹

Filters with the same S are solved together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from onnx_esn.numerics.cross_moments import CrossMoments
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.positive_definite import solve

Mask = NDArray[np.bool_]


def shared_support(support: Mask) -> NDArray[np.int64] | None:
    """The columns that all filters (G, m, d) may have, where it is the same for all; else None."""
    rows = support.reshape(-1, support.shape[-1])
    return np.flatnonzero(rows[0]) if (rows == rows[0]).all() else None


def columns(moments: CrossMoments, kept: npt.NDArray[np.int64]) -> CrossMoments:
    """The moments of some of the inputs."""
    return replace(
        moments,
        x_mean=moments.x_mean[:, kept],
        xx=moments.xx[:, kept][:, :, kept],
        yx=moments.yx[:, :, kept],
    )


def support_work(support: Mask) -> float:
    """Multiplications that `refit_supported` needs, about."""
    return sum(
        float(rows.sum(axis=1, dtype=np.float64) ** 3 @ np.ones(len(rows))) / 3
        for rows in (np.unique(group, axis=0) for group in support)
    )


def refit_supported(moments: CrossMoments, W0: Floats, support: Mask, ridge: float) -> Floats:
    """The weights (G, m, d) closest to the wanted outputs that are zero outside the support.

    Args:
        moments: of the inputs and the wanted outputs.
        W0: what they are drawn to (G, m, d); zero outside the support.
        support: (G, m, d), which weights may differ from zero.
        ridge: λ, as for `cross_moments.refit`.
    """
    H, C = moments.H, moments.C
    W = np.where(support, W0, 0.0)
    for g in range(len(H)):
        diagonal = float(np.trace(H[g])) / H.shape[1]
        extra = ridge * diagonal if diagonal > 0 else 1.0
        error = C[g] - W[g] @ H[g]
        patterns, of = np.unique(support[g], axis=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            rows, kept = np.flatnonzero(of.reshape(-1) == i), np.flatnonzero(pattern)
            if not kept.size:
                continue
            A = H[g][np.ix_(kept, kept)] + extra * np.eye(kept.size)
            step = solve(A[None], error[np.ix_(rows, kept)].T[None])[0].T
            W[g][np.ix_(rows, kept)] += step
    return W
