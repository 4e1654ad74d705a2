"""Prices on the budgets: what counts are worth at most, and counts that are good at some price.

At prices λ ≥ 0 the best counts maximise tables(k) − Σ_r λ_r·(cost_r(k) − limit_r), by elimination.
Each such maximum is an upper bound; the least of them is the Lagrangian dual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.qcqp.elimination import Order, maximise, plan_elimination
from onnx_esn.numerics.qcqp.instance import Floats, Integers
from onnx_esn.numerics.qcqp.kinds import Kinds
from onnx_esn.numerics.qcqp.tables import Tables, linked

_HALVINGS = 24
_FEW_ENTRIES = 1 << 14  # of tables that make proposals where elimination is not exact
_CYCLES = 3  # over several budgets
LEVELS = (2049, 513, 257, 129, 65)


@dataclass(frozen=True, eq=False)
class Priced:
    """Tables with the costs, their counts brought down to at most so many levels.

    Where `bound`, a level stands for a range of counts with the best of it; else for one count.
    """

    tables: Tables
    kinds: Kinds
    levels: list[Integers]  # the largest count of each level
    bound: bool
    order: Order

    def best(self, prices: Floats) -> tuple[float, Integers]:
        """The largest value at these prices, and the counts (K,) it is reached at."""
        costs = self.kinds.costs
        const = self.tables.const - sum(
            p * (c.const - c.limit) for p, c in zip(prices, costs, strict=True)
        )
        unary = []
        for a, u in enumerate(self.tables.unary):
            value = u - sum(p * c.unary[a] for p, c in zip(prices, costs, strict=True))
            value = np.where(self.kinds.allowed[a], value, -np.inf)
            unary.append(self._reduced(value, (a,)))
        pairs = {}
        for a, b in self.order.pairs:
            value = self.tables.pairs.get((a, b), np.zeros((1, 1)))
            n, m = np.arange(self.kinds.sizes[a] + 1.0), np.arange(self.kinds.sizes[b] + 1.0)
            factor = sum(p * c.pairs.get((a, b), 0.0) for p, c in zip(prices, costs, strict=True))
            pairs[a, b] = self._reduced(value - factor * np.outer(n, m), (a, b))
        value, at = maximise(self.order, unary, pairs)
        k = np.array([lv[i] for lv, i in zip(self.levels, at, strict=True)], dtype=np.int64)
        return const + value, k

    def _reduced(self, table: Floats, scope: Sequence[int]) -> Floats:
        for axis, a in enumerate(scope):
            levels = self.levels[a]
            if levels.size == table.shape[axis]:
                continue
            if self.bound:
                starts = np.append(0, levels[:-1] + 1)
                table = np.maximum.reduceat(table, starts, axis=axis)
            else:
                table = np.take(table, levels, axis=axis)
        return table


def priced(tables: Tables, kinds: Kinds, *, bound: bool, levels: Sequence[int] = LEVELS) -> Priced:
    """Lay tables and costs out for `Priced.best`.

    Args:
        tables: what counts are worth.
        kinds: what they cost.
        bound: whether levels stand for all counts in between.
        levels: how many levels a kind may have; the first with which elimination is exact holds,
            or the last.
    """
    pairs = linked(tables, kinds)
    for most in levels:
        chosen = []
        for a, n in enumerate(kinds.sizes):
            ok = np.arange(n + 1) if bound else np.flatnonzero(kinds.allowed[a])
            if ok.size > most:
                ok = ok[np.unique(np.linspace(0, ok.size - 1, most).round().astype(np.int64))]
            chosen.append(ok)
        order = plan_elimination([x.size for x in chosen], pairs)
        if order.exact:
            break
    else:
        if not bound:  # it is a proposal only: be quick
            order = plan_elimination([x.size for x in chosen], pairs, _FEW_ENTRIES)
    return Priced(tables, kinds, chosen, bound, order)


def descend(problem: Priced, out_of_time: Callable[[], bool]) -> tuple[float, list[Integers]]:
    """Return the least bound over prices, and the counts that were best at those prices.

    The bound is one only where the problem was laid out for that.
    """
    costs = problem.kinds.costs
    prices = np.zeros(len(costs))
    bound, k = problem.best(prices)
    seen = [k]
    for _ in range(_CYCLES if len(costs) > 1 else 1):
        before = prices.copy()
        for r, cost in enumerate(costs):
            bound = min(bound, _settle(problem, prices, r, cost.limit, seen, out_of_time))
        if np.allclose(before, prices, rtol=1e-3, atol=0) or out_of_time():
            break
    return bound, seen


def _settle(
    problem: Priced,
    prices: Floats,
    r: int,
    limit: float,
    seen: list[Integers],
    out_of_time: Callable[[], bool],
) -> float:
    """Set price r, in place, to where its budget is just met; the least bound on the way."""
    cost = problem.kinds.costs[r]
    prices[r] = 0.0
    bound, k = problem.best(prices)
    seen.append(k)
    if cost.of(k) <= limit:
        return bound
    low, high = 0.0, max(abs(bound), 1e-12) / max(cost.of(k) - cost.const, 1e-300)
    for _ in range(_HALVINGS):
        prices[r] = high
        value, k = problem.best(prices)
        bound = min(bound, value)
        seen.append(k)
        if cost.of(k) <= limit or out_of_time():
            break
        low, high = high, high * 4
    for _ in range(_HALVINGS):
        if high - low <= 1e-6 * high or out_of_time():
            break
        prices[r] = (low + high) / 2
        value, k = problem.best(prices)
        bound = min(bound, value)
        seen.append(k)
        if cost.of(k) <= limit:
            high = prices[r]
        else:
            low = prices[r]
    prices[r] = high
    return bound
