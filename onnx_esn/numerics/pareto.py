"""The Pareto front of cheap and good."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SAME_COST = 0.01  # how much budgets that are met to the next bit differ, as a share


def pareto_front(
    cost: npt.ArrayLike, value: npt.ArrayLike, *, tolerance: float = 0.0
) -> npt.NDArray[np.bool_]:
    """Return which points (P,) no other point dominates: none costs no more and is worth no less.

    One of the two must differ, so that equal points share their fate. A point with NaN is never on
    the front and dominates none. With a `tolerance`, a point does not stay on the front either if
    another is worth more and costs at most that share more.
    """
    c, v = np.asarray(cost, dtype=np.float64), np.asarray(value, dtype=np.float64)
    front = np.zeros(c.shape, dtype=bool)
    known = np.flatnonzero(~(np.isnan(c) | np.isnan(v)))
    if not known.size:
        return front
    level, group = np.unique(c[known], return_inverse=True)
    best = np.full(level.size, -np.inf)
    np.maximum.at(best, group, v[known])
    cheaper = np.concatenate([[-np.inf], np.maximum.accumulate(best)[:-1]])
    first = np.arange(level.size) == 0  # a value of −inf is still the best of the cheapest
    better = (best > cheaper) | first
    front[known] = better[group] & (v[known] == best[group])
    for i in np.flatnonzero(front) if tolerance else ():
        near = c[known] <= c[i] * (1 + tolerance)
        front[i] = not (v[known][near] > v[i]).any()
    return front


def cost_at(cost: npt.ArrayLike, value: npt.ArrayLike, level: float) -> float | None:
    """Return what a value costs on the curve through points (P,), linear in the log of the cost.

    The curve is the best value that can be had for at most that cost; so a dearer point that is
    worth less does not bend it. None where the level is below or above all of it. Points with NaN
    are left out.
    """
    c, v = np.asarray(cost, dtype=np.float64), np.asarray(value, dtype=np.float64)
    known = ~(np.isnan(c) | np.isnan(v))
    order = np.lexsort((-v[known], c[known]))
    c, best = c[known][order], np.maximum.accumulate(v[known][order])
    if not c.size or not best[0] <= level <= best[-1]:
        return None
    right = int(np.searchsorted(best, level))
    if right == 0 or best[right] == level or np.isinf(best[right]):
        return float(c[right])
    share = (level - best[right - 1]) / (best[right] - best[right - 1])
    return float(c[right - 1] * (c[right] / c[right - 1]) ** share)
