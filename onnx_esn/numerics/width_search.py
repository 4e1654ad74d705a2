"""Search over the widths of all groups at once, bits following along.

One price of cost, λ, stands for the budget. At a price, the width of one group is chosen from all
there are with the others fixed, bits of the readers included; group after group, until none
changes: a descent of loss + λ·cost. The cost is bilinear in the widths, so where it ends depends
on where it starts: from nothing pruned, from half, and from where the prices nearby ended.

What the prices propose is settled at the budget itself: each proposal has a lower bound, the
Lagrangian dual of its bits, and only those whose bound beats the best result are worked out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.width_costs import Layer

_TINY = float(np.finfo(np.float64).tiny)
_ROUNDS = 12  # of a descent over all groups
_PAIR_STEPS = sorted(
    itertools.product((-1, 1, -2, 2), repeat=2), key=lambda s: abs(s[0]) + abs(s[1])
)
_STEPS = 50  # halvings of the interval of the price


class Widths:
    """The groups and layers; k (G,) says how many classes of each curve are gone.

    losses are those of each curve (n + 1,), inf where a width is not allowed.
    """

    def __init__(self, layers: Sequence[Layer], losses: Sequence[Floats]) -> None:
        self.layers, self.losses = layers, losses
        self.allowed = [np.flatnonzero(np.isfinite(loss)) for loss in losses]
        self._touching = [
            [layer for layer in layers if g in layer.writes or g in layer.reads]
            for g in range(len(losses))
        ]
        self._near = [
            sorted({h for layer in near for h in (*layer.writes, *layer.reads)} | {g})
            for g, near in enumerate(self._touching)
        ]
        self.price = 0.0  # at which the budget was about met

    def most(self) -> Integers:
        """Return the narrowest widths that are allowed."""
        return np.array([a[-1] for a in self.allowed], dtype=np.int64)

    def totals(self, k: Integers, price: float) -> tuple[float, float]:
        """Return the loss and the cost at the best bits for this price."""
        both = [layer.totals(k, price) for layer in self.layers]
        loss = sum(float(curve[n]) for curve, n in zip(self.losses, k, strict=True))
        return loss + sum(x for x, _ in both), sum(c for _, c in both)

    def profile(self, g: int, k: Integers, price: float) -> tuple[Floats, Floats]:
        """Return the loss and the cost (n + 1,) of each width of group g, up to constants."""
        loss, cost = self.losses[g].copy(), np.zeros(self.losses[g].size)
        for layer in self._touching[g]:
            lost, costs = layer.profile(g, k, price)
            loss += lost
            cost += costs
        return loss, cost

    def descend(self, k: Integers, price: float) -> Integers:
        """Return widths from which no change of one group lowers loss + price·cost."""
        k = k.copy()
        since = 0  # groups seen since the last change
        for turn in range(_ROUNDS * k.size):
            g = turn % k.size
            loss, cost = self.profile(g, k, price)
            value = loss + price * cost
            best = int(value.argmin())
            since += 1
            if value[best] < value[k[g]] - 1e-12 * abs(value[k[g]]):
                k[g], since = best, 0
            if since >= k.size:
                break
        return k

    def bound(self, k: Integers, budget: float) -> tuple[float, float]:
        """Return a lower bound on the loss at these widths within the budget, and its price.

        inf if even the least bits cost more. The bound is the dual of the bits' problem.
        """
        loss, cost = self.totals(k, 0.0)
        if cost <= budget:
            return loss, 0.0
        if self.totals(k, np.inf)[1] > budget:
            return np.inf, np.inf
        high = loss / cost + _TINY
        while (at := self.totals(k, high))[1] > budget:
            high *= 4
        best, low = at[0] + high * (at[1] - budget), 0.0
        for _ in range(_STEPS):
            price = (low + high) / 2 if low == 0 else float(np.sqrt(low * high))
            loss, cost = self.totals(k, price)
            best = max(best, loss + price * (cost - budget))
            low, high = (price, high) if cost > budget else (low, price)
            if high <= low * (1 + 1e-9) or cost == budget:
                break
        return best, high

    def proposals(self, budget: float) -> Iterator[Integers]:
        """Yield widths that are good at some price, for prices that close in on the budget."""
        none = np.array([a[0] for a in self.allowed], dtype=np.int64)
        most = self.most()
        half = np.array([a[a.size // 2] for a in self.allowed], dtype=np.int64)
        loss, cost = self.totals(none, 0.0)
        yield none
        yield most
        if cost <= budget or not none.size:
            return
        scale = sum(float(c[a[-1]]) for c, a in zip(self.losses, self.allowed, strict=True))
        price = max(scale + self.totals(none, np.inf)[0], loss, _TINY) / cost
        low, high = price * 1e-9, price * 1e9
        wide, narrow = none, most
        for _ in range(_STEPS):
            price = float(np.sqrt(low * high))
            ends = [self.descend(start, price) for start in (none, half, wide, narrow)]
            values = [self.totals(k, price) for k in ends]
            best = int(np.argmin([x + price * c for x, c in values]))
            yield from ends
            if values[best][1] > budget:
                low, wide = price, ends[best]
            else:
                high, narrow = price, ends[best]
            self.price = high
            if high <= low * 1.001:
                return

    def fit(self, k: Integers, budget: float) -> Integers | None:
        """Return widths that fit at the least bits, from k: fewer, then as many as still fit.

        Each step takes the change of one group that loses least, or saves most, per cost.
        """
        k = k.copy()
        profiles = [self.profile(g, k, np.inf) for g in range(k.size)]
        left = budget - self.totals(k, np.inf)[1]
        while True:
            steps = [_best_step(*p, int(n), left) for p, n in zip(profiles, k, strict=True)]
            g = max(range(k.size), key=lambda g: steps[g][0], default=-1)
            if g < 0 or steps[g][0] <= 0:
                left = budget - self.totals(k, np.inf)[1]
                return k if left >= 0 else None
            _, n = steps[g]
            left -= float(profiles[g][1][n] - profiles[g][1][k[g]])
            k[g] = n
            for other in self._near[g]:
                profiles[other] = self.profile(other, k, np.inf)

    def neighbours(self, k: Integers, price: float) -> Iterator[Integers]:
        """Yield widths near k: one group changed, the most promising at this price first; then two.

        Of two groups each goes one or two of the allowed steps, up or down.
        """
        single: list[tuple[float, int, int]] = []
        for g, allowed in enumerate(self.allowed):
            loss, cost = self.profile(g, k, price)
            value = loss - loss[k[g]] + (price * (cost - cost[k[g]]) if price else 0.0)
            single += [(float(value[n]), g, int(n)) for n in allowed if n != k[g]]
        for _, g, n in sorted(single):
            other = k.copy()
            other[g] = n
            yield other
        at = [int(np.searchsorted(a, n)) for a, n in zip(self.allowed, k, strict=True)]
        pairs = list(itertools.combinations(range(k.size), 2))
        for (a, b), (g, h) in itertools.product(_PAIR_STEPS, pairs):
            i, j = at[g] + a, at[h] + b
            if 0 <= i < self.allowed[g].size and 0 <= j < self.allowed[h].size:
                other = k.copy()
                other[g], other[h] = self.allowed[g][i], self.allowed[h][j]
                yield other


def _best_step(loss: Floats, cost: Floats, now: int, left: float) -> tuple[float, int]:
    """Return the best rate of a change of width, and the width; a rate of −1 if none is of use.

    What is left of the budget decides: cost saved per loss if negative, loss saved per cost if not.
    """
    saved, extra = loss[now] - loss, cost - cost[now]
    if left < 0:
        useful, saved, extra = np.isfinite(saved) & (extra < 0), -extra, -saved
    else:
        useful = (saved > 0) & (extra <= left)
    n = np.flatnonzero(useful)
    if not n.size:
        return -1.0, now
    free = extra[n] <= saved[n] * 1e-290  # also keeps the division from overflowing
    rate = np.where(free, np.inf, saved[n] / np.where(free, 1.0, extra[n]))
    best = int(rate.argmax())
    return float(rate[best]), int(n[best])
