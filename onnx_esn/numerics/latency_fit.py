"""How long a layer takes as a function of its widths: a bilinear fit of timings.

    t(n_in, n_out) = c0 + c1·n_in + c2·n_out + c3·n_in·n_out,    all c ≥ 0

c3 is the arithmetic, c1 and c2 reading the input and writing the output, c0 the call. Each timing
counts relative to itself, so that a narrow layer is met as well as a wide one:

    min Σ_k ((t̂_k − t_k) / t_k)²   over c ≥ 0

Source: Jeong, Kim and Song (2022), "Succinct network channel and spatial pruning via discrete
variable QCQP".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from scipy.optimize import nnls

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LatencyFit:
    """A fit.

    Attributes:
        c: c0 … c3 in the unit of the timings, ≥ 0.
        r2: share of the timings' variance that it explains, with the weights of the fit; 1 where
            there is none.
        error: median of |t̂ − t| / t.
    """

    c: tuple[float, float, float, float]
    r2: float
    error: float

    def __call__(self, n_in: float, n_out: float) -> float:
        """Time at these widths."""
        c0, c1, c2, c3 = self.c
        return c0 + c1 * n_in + c2 * n_out + c3 * n_in * n_out


def fit_latency(
    n_in: npt.ArrayLike,
    n_out: npt.ArrayLike,
    times: npt.ArrayLike,
    *,
    counts: npt.ArrayLike = 1.0,
    one_width: bool = False,
) -> LatencyFit:
    """Fit timings.

    A width that never changes gets no coefficient: its share is in the others.

    Args:
        n_in: (K,) channels read.
        n_out: (K,) filters.
        times: (K,) above 0.
        counts: (K,) how often each timing counts.
        one_width: the two are one number (a depthwise layer): only c0 and c2.

    Raises:
        ValueError: no timings, or one that is not above 0.
    """
    a, b = np.asarray(n_in, np.float64), np.asarray(n_out, np.float64)
    t = np.asarray(times, np.float64)
    if not t.size or not (t > 0).all():
        raise ValueError("timings have to be above 0, and at least one")
    use_in, use_out = not one_width and np.ptp(a) > 0, np.ptp(b) > 0
    columns = np.stack([np.ones_like(t), a, b, a * b], axis=1)
    used = np.array([True, use_in, use_out, use_in and use_out])
    n = np.broadcast_to(np.asarray(counts, np.float64), t.shape)
    weighted = columns[:, used] * (np.sqrt(n) / t)[:, None]
    scale = weighted.max(axis=0)
    found, _ = nnls(weighted / scale, np.sqrt(n))
    c = np.zeros(4)
    c[used] = found / scale
    fitted = columns @ c
    weight = n / t**2
    mean = float((weight * t).sum() / weight.sum())
    spread = float((weight * (t - mean) ** 2).sum())
    left = float((weight * (t - fitted) ** 2).sum())
    r2 = 1.0 if spread <= 1e-24 * float(n.sum()) else 1 - left / spread
    c0, c1, c2, c3 = map(float, c)
    return LatencyFit((c0, c1, c2, c3), r2, float(np.median(np.abs(fitted / t - 1))))
