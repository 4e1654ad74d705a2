"""Greedy selection: the class whose loss per cost is least goes, until the budgets are met.

What then still fits comes back. This is the baseline, where the search starts, and what is left
when the time is up.
"""

from __future__ import annotations

import numpy as np

from onnx_esn.numerics.qcqp.instance import SLACK, Floats, Instance, Integers, Mask
from onnx_esn.numerics.qcqp.kinds import CountCost, Kinds

_HALVINGS = 12


def greedy(instance: Instance, kinds: Kinds) -> Mask | None:
    """Return a choice x (n,) within the budgets, or None where the greedy way finds none."""
    x = reduce(instance, kinds)
    if x is not None and instance.feasible(x):
        return fill(instance, kinds, x)
    # Widths in steps give classes back: aim lower by as much as that costs.
    best, low, high = None, 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        x = reduce(instance, kinds, middle)
        if x is not None and instance.feasible(x):
            best, low = x, middle
        elif x is None:
            low = middle
        else:
            high = middle
    if best is None:
        x = narrowest(instance, kinds)
        best = x if instance.feasible(x) else None
    return None if best is None else fill(instance, kinds, best)


def narrowest(instance: Instance, kinds: Kinds) -> Mask:
    """Return the choice (n,) that is left when everything goes that may."""
    x = reduce(instance, kinds, -np.inf)
    assert x is not None
    return x


def fill(instance: Instance, kinds: Kinds, x: Mask, spare: Mask | None = None) -> Mask:
    """Return x with classes that still fit, best first by gain.

    spare (n,) are classes that must not come back.
    """
    x = x.copy()
    k = kinds.counts(x)
    gains = instance.gains(x)
    open_ = ~x if spare is None else ~x & ~spare
    while open_.any():
        open_ &= _may_grow(kinds, k)[kinds.of]
        value = np.where(open_, gains, -1.0)
        c = int(value.argmax())
        if value[c] <= 0:
            break
        x[c], open_[c] = True, False
        k[kinds.of[c]] += 1
        instance.shift_gains(gains, c, 1.0)
    return x


def marginal(cost: CountCost, kinds: Kinds, k: Integers, step: int) -> Floats:
    """Return the change of a cost (K,) with one class more (+1) or less (−1) of each kind.

    0 where there is none.
    """
    to = k + step
    inside = (to >= 0) & (to <= np.array(kinds.sizes, dtype=np.int64))
    unary = [
        u[n] - u[m] if ok else 0.0
        for u, n, m, ok in zip(cost.unary, np.where(inside, to, k), k, inside, strict=True)
    ]
    change = np.array(unary, dtype=np.float64)
    for (a, b), f in cost.pairs.items():
        change[a] += step * f * k[b] * inside[a]
        change[b] += step * f * k[a] * inside[b]
    return change


def _may_grow(kinds: Kinds, k: Integers) -> Mask:
    """Whether one class more of each kind (K,) still fits."""
    ok = k < np.array(kinds.sizes, dtype=np.int64)
    for c in kinds.costs:
        ok &= c.of(k) + marginal(c, kinds, k, 1) <= c.limit + SLACK * abs(c.limit)
    for a in np.flatnonzero(ok):
        more = k.copy()
        more[a] += 1
        ok[a] = kinds.fits(more)
    return ok


def reduce(
    instance: Instance,
    kinds: Kinds,
    aim: float = 1.0,
    start: Mask | None = None,
    held: Mask | None = None,
) -> Mask | None:
    """Remove classes until all costs are at most aim·limit; then widths are put in step.

    Args:
        instance, kinds: the program.
        aim: −inf removes all that may go.
        start: the choice (n,) to begin with; None: everything stays.
        held: classes (n,) that must not go.

    Returns:
        The choice (n,); None where the costs cannot be reached so.
    """
    x = np.ones(instance.size, np.bool_) if start is None else start.copy()
    k = kinds.counts(x)
    gains = instance.gains(x)
    stuck = np.zeros(instance.size, np.bool_) if held is None else held.copy()
    limits = [c.limit * aim if np.isfinite(aim) else -np.inf for c in kinds.costs]
    spare = [max(w.count.of(x) - w.least, 0.0) for w in instance.widths]
    holds = instance.widths_of
    while True:
        over = [c for c, m in zip(kinds.costs, limits, strict=True) if c.of(k) > m * (1 + SLACK)]
        if not over:
            break
        saved = np.zeros(len(kinds))
        for cost in over:
            saved -= marginal(cost, kinds, k, -1) / max(abs(cost.limit), 1e-300)
        rate = saved[kinds.of]
        value = np.full(instance.size, np.inf)
        may = x & ~stuck & (rate > 0 if np.isfinite(aim) else np.ones(x.size, np.bool_))
        value[may] = gains[may] / np.maximum(rate[may], 1e-300)
        c = int(value.argmin()) if value.size else 0
        if not may.any():
            if np.isfinite(aim):
                return None
            break
        if any(spare[w] < n for w, n in holds[c]):
            stuck[c] = True
            continue
        for w, n in holds[c]:
            spare[w] -= n
        x[c] = False
        k[kinds.of[c]] -= 1
        instance.shift_gains(gains, c, -1.0)
    return _in_step(instance, x, gains)


def _in_step(instance: Instance, x: Mask, gains: Floats) -> Mask:
    """Give classes back, best first, until every width is a multiple of its step or whole."""
    wrong = [w for w in instance.widths if not w.allows(w.count.of(x))]
    while wrong:
        gone = wrong[0].count.classes[~x[wrong[0].count.classes]]
        x[gone[gains[gone].argmax()]] = True
        wrong = [w for w in instance.widths if not w.allows(w.count.of(x))]
    return x
