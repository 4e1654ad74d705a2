"""Solve the quadratic program of channel selection.

Few classes: all choices. Else, from the greedy choice: rank the classes of each kind by what they
add; solve over counts, first with prices on the budgets, then as integer programs on windows that
narrow; rank again; until nothing gains. Last, exchanges at random. The bound comes from a
Lagrangian dual over counts that knows nothing of the ranking (`tables.bounding`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onnx_esn.errors import BudgetError
from onnx_esn.numerics.qcqp.counts import best_counts
from onnx_esn.numerics.qcqp.dual import descend, priced
from onnx_esn.numerics.qcqp.exhaustive import MOST_CLASSES, exhaustive
from onnx_esn.numerics.qcqp.greedy import fill, greedy, narrowest
from onnx_esn.numerics.qcqp.instance import Instance, Integers, Mask
from onnx_esn.numerics.qcqp.kinds import Kinds, find_kinds
from onnx_esn.numerics.qcqp.ranking import order_of, rerank, shaken
from onnx_esn.numerics.qcqp.spectral import spectral
from onnx_esn.numerics.qcqp.tables import Edges, Tables, bounding, entrywise, find_edges, ranked

_WINDOWS = ((4, 8), (4, 4), (4, 2), (4, 1))  # (counts on either side, share of a kind / step)
_ROUNDS = 8
_WORTH_IT = 1e-5  # a gain that another integer program is solved for
_SHAKES = 250
_FEW = 16  # counts to look at for any choice at all
_BOUND_SHARE = 0.25  # of the time


@dataclass(frozen=True, eq=False)
class Solution:
    """What was found.

    Attributes:
        keep: the choice (n,).
        objective: what it is worth.
        bound: what no choice exceeds.
        greedy: what the greedy choice is worth; NaN where it found none.
        optimal: whether the choice is proven best.
        in_time: whether the time limit had no influence: the same again gives the same.
        seconds: time taken.
    """

    keep: Mask
    objective: float
    bound: float
    greedy: float
    optimal: bool
    in_time: bool
    seconds: float


class Clock:
    """Counts down, and remembers whether anyone ran out of time."""

    def __init__(self, seconds: float) -> None:
        self.start, self.seconds, self.struck = time.perf_counter(), seconds, False

    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(self.seconds - self.spent(), 0.0)

    def out(self) -> bool:
        """Whether the time is up."""
        up = self.spent() >= self.seconds
        self.struck |= up
        return up


def solve(instance: Instance, seconds: float = 60.0, seed: int = 0) -> Solution:
    """Return the best choice found within `seconds`, a bound, and the greedy choice's worth.

    Raises:
        BudgetError: not even the narrowest choice is within a budget; the message names it.
    """
    clock = Clock(seconds)
    kinds = find_kinds(instance)
    start = greedy(instance, kinds)
    if start is None and instance.size > MOST_CLASSES:
        start = _any_choice(instance, kinds, seconds)
    first = np.nan if start is None else instance.objective(start)
    if instance.size <= MOST_CLASSES:
        best = exhaustive(instance)
        if best is None:
            raise BudgetError(_missed(instance, kinds))
        value = instance.objective(best)
        return Solution(best, value, value, first, True, True, clock.spent())
    if start is None:
        raise BudgetError(_missed(instance, kinds))
    edges = find_edges(instance, kinds)
    search = Clock(seconds * (1 - _BOUND_SHARE))
    x = _searched(instance, kinds, edges, start, search, seed)
    bound = _bound(edges, kinds, kinds.counts(x), clock)
    value = instance.objective(x)
    bound = max(float(bound), value)  # by rounding
    in_time = not (clock.struck or search.struck)
    optimal = bool(bound <= value * (1 + 1e-9))
    return Solution(x, value, bound, first, optimal, in_time, clock.spent())


def without_inactive(
    instance: Instance, solution: Solution, inactive: Callable[[Mask], Mask]
) -> Solution:
    """Drop what is `inactive` in the choice until nothing is, and use what that sets free.

    Args:
        instance: the program.
        solution: of it.
        inactive: per class, whether it does nothing in a choice.
    """
    kinds, x = find_kinds(instance), solution.keep.copy()
    never = np.zeros(instance.size, np.bool_)
    while True:
        idle = inactive(x) & x & ~never
        dropped = False
        for c in np.flatnonzero(idle):
            x[c], never[c] = False, True
            if instance.feasible(x):
                dropped = True
            else:
                x[c] = True
        if not dropped:
            break
        x = fill(instance, kinds, x, never)
    value = instance.objective(x)
    optimal = solution.optimal and value >= solution.objective * (1 - 1e-9)
    return replace(solution, keep=x, objective=value, optimal=optimal)


def _searched(
    instance: Instance, kinds: Kinds, edges: Edges, start: Mask, clock: Clock, seed: int
) -> Mask:
    best = rerank(instance, kinds, start)
    best = fill(instance, kinds, best)
    for turn in range(2):
        best = _over_counts(instance, kinds, edges, best, clock)
        if clock.out():
            return best
        better = shaken(instance, kinds, best, _SHAKES, seed + turn, clock.out)
        if instance.objective(better) <= instance.objective(best) * (1 + 1e-9):
            return better
        best = better
    return best


def _any_choice(instance: Instance, kinds: Kinds, seconds: float) -> Mask | None:
    """A choice within budgets and widths, where the greedy way found none."""
    nothing = Tables(0.0, [np.zeros(n + 1) for n in kinds.sizes], {})
    windows = [_window(0, ok, _FEW, max(1, int(ok.sum()) // _FEW)) for ok in kinds.allowed]
    k = best_counts(nothing, kinds, windows, seconds / 2)
    if k is None or not _within(kinds, k):
        return None
    edges = find_edges(instance, kinds)
    return _first(instance, kinds, edges, k, np.ones(instance.size, np.bool_))


def _over_counts(instance: Instance, kinds: Kinds, edges: Edges, best: Mask, clock: Clock) -> Mask:
    """Rank and count in turn while it gains."""
    value = instance.objective(best)
    for _ in range(_ROUNDS):
        tables = ranked(edges, order_of(instance, kinds, best))
        problem, share = priced(tables, kinds, bound=False), Clock(clock.left() / 4)
        _, proposals = descend(problem, share.out)
        clock.struck |= share.struck
        k = _best_proposal(tables, kinds, [kinds.counts(best), *proposals])
        tried: set[bytes] = set()
        for reach, part in _WINDOWS:
            windows = [
                _window(int(n), kinds.allowed[a], reach, max(1, kinds.sizes[a] * part // 128))
                for a, n in enumerate(k)
            ]
            key = b"|".join(w.tobytes() for w in windows)
            if clock.out() or key in tried:
                continue
            tried.add(key)
            beat = tables.of(k) * (1 + _WORTH_IT)
            found = best_counts(tables, kinds, windows, clock.left() / 2, beat)
            if found is not None and _within(kinds, found) and tables.of(found) > tables.of(k):
                k = found
        trial = rerank(instance, kinds, _first(instance, kinds, edges, k, best))
        trial = fill(instance, kinds, trial)
        if not instance.feasible(trial) or instance.objective(trial) <= value * (1 + 1e-9):
            break
        best, value = trial, instance.objective(trial)
        if clock.out():
            break
    return best


def _first(instance: Instance, kinds: Kinds, edges: Edges, k: Integers, x: Mask) -> Mask:
    """The first k_a classes of each kind in the order that x gives."""
    chosen = np.zeros(instance.size, np.bool_)
    for m, order, n in zip(kinds.members, order_of(instance, kinds, x), k, strict=True):
        chosen[m[order[:n]]] = True
    return chosen


def _best_proposal(tables: Tables, kinds: Kinds, proposals: list[Integers]) -> Integers:
    within = [k for k in proposals if _within(kinds, k)]
    return max(within, key=tables.of)


def _within(kinds: Kinds, k: Integers) -> bool:
    return kinds.fits(k) and all(c.of(k) <= c.limit * (1 + 1e-9) for c in kinds.costs)


def _window(n: int, allowed: Mask, reach: int, step: int) -> Integers:
    """Allowed counts about n, `reach` on either side and `step` of them apart."""
    ok = np.flatnonzero(allowed)
    at = int(np.searchsorted(ok, n))
    wanted = at + step * np.arange(-reach, reach + 1)
    return ok[np.unique(wanted[(wanted >= 0) & (wanted < ok.size)])]


def _bound(edges: Edges, kinds: Kinds, k: Integers, clock: Clock) -> float:
    half = Clock(clock.left() / 2)
    weights = spectral(edges, kinds, k * (1 - k / np.array(kinds.sizes)), half.out)
    found = descend(priced(bounding(edges, weights), kinds, bound=True), clock.out)[0]
    if not clock.out():
        found = min(found, descend(priced(entrywise(edges), kinds, bound=True), clock.out)[0])
    clock.struck |= half.struck
    return found


def _missed(instance: Instance, kinds: Kinds) -> str:
    """The message for budgets that cannot be met."""
    x = narrowest(instance, kinds)
    missed = [b for b in instance.budgets if not b.met(x)]
    if not missed:
        return "no choice of widths meets all budgets; ask for more, or for less with round_to"
    b = missed[0]
    return (
        f"{_figure(b.limit)} {b.name} cannot be reached by pruning: with as little as may be left "
        f"{_figure(b.cost(x), up=True)} remain; ask for at least that, or exclude fewer layers"
    )


def _figure(x: float, *, up: bool = False) -> str:
    """Whole from 1,000 on, else of six digits; `up`: never less than x, so that it can be had."""
    if x >= 1000:
        return f"{math.ceil(x - 1e-6) if up else round(x):,}"
    unit = 10.0 ** (math.floor(math.log10(x)) - 5) if x > 0 else 1.0
    return f"{math.ceil(x / unit - 1e-6) * unit if up else x:.6g}"
