"""Where to clip a tensor before it is quantized: the range of least squared error.

    min over l ≤ 0 ≤ h of Σ_i n_i·(x_i − x̂_i)²,   x̂ = s·(clip(round(x/s) + z, 0, n) − z),
    s = (h − l)/n,   z = round(−l/s)

A histogram stands for the tensor: n_i values at x_i. What is clipped costs more the further out it
lies, what is not clipped costs about s²/12 a value: with few bits the best range ends well within
the extremes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import Floats

_SHARES = np.geomspace(1.0, 0.01, 120)  # of an extreme, at which a range may end
_ROUNDS = 4  # over its two ends, by turns


def best_range(
    counts: npt.ArrayLike,
    values: npt.ArrayLike,
    low: float,
    high: float,
    steps: int,
    *,
    symmetric: bool = False,
) -> tuple[float, float]:
    """The range (l, h), within `low` and `high`.

    Args:
        counts: (B,) how often each value occurs.
        values: (B,) the values.
        low, high: the extremes; the range is widened to hold 0.
        steps: n, levels less one.
        symmetric: l = −h, and z in the middle.
    """
    n, x = np.asarray(counts, np.float64), np.asarray(values, np.float64)
    n, x = n[n > 0], x[n > 0]
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        most = max(-low, high)
        tried = most * _SHARES
        best = float(tried[np.argmin(clipping_error(n, x, -tried, tried, steps))])
        return -best, best
    ends = np.array([low, high])
    for turn in range(_ROUNDS):
        changed = False
        for i, extreme in ((1, high), (0, low)):
            if extreme == 0:
                continue
            tried = extreme * _SHARES
            lows, highs = (tried if j == i else np.full_like(tried, ends[j]) for j in (0, 1))
            found = tried[np.argmin(clipping_error(n, x, lows, highs, steps))]
            changed |= bool(found != ends[i])
            ends[i] = found
        if turn and not changed:
            break
    return float(ends[0]), float(ends[1])


def clipping_error(
    counts: Floats, values: Floats, lows: Floats, highs: Floats, steps: int
) -> Floats:
    """The sum above for each of the ranges (R,); infinite for an empty range."""
    wide = highs > lows
    s = np.where(wide, (highs - lows) / steps, 1.0)[:, None]
    z = np.clip(np.rint(-lows[:, None] / s), 0, steps)
    q = np.clip(np.rint(values[None, :] / s) + z, 0, steps)
    error: Floats = np.square(values[None, :] - s * (q - z)) @ counts
    return np.where(wide, error, np.inf)
