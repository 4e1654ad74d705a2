"""Widths of groups and bits of filters together: least loss within one budget of MAC·bit.

    minimise   prune_scale·Σ_g loss_g(k_g) + Σ_{filters kept} D[f, b_f]
    subject to Σ_layers unit · (inputs kept) · Σ_{filters kept} b_f ≤ budget

k_g is how many classes of curve g are gone, always the first k_g of its order. A filter that goes
saves its own bits, and takes an input from each filter that reads it: the cost is quadratic, as in
discrete QCQP channel selection, but it depends on the widths alone, and those are few numbers.

Proposals of widths come from a search over prices of cost (`width_search`). At given widths the
bits are a knapsack, which `allocate_bits` solves; the best proposal is then improved by changing
one width or two, the bits being allocated anew each time.

Source: Jeong et al. (2022), "Optimal channel selection with discrete QCQP", for the coupling;
Shoham and Gersho (1988) for one multiplier over all choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_esn.errors import BudgetError, VerificationError
from onnx_esn.numerics.bit_allocation import allocate_bits
from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.width_costs import Layer, LayerCost, WidthCurve
from onnx_esn.numerics.width_search import Widths

__all__ = ["Allocation", "LayerCost", "WidthCurve", "allocate"]

_WORK = 2_000_000  # hull edges times widths that are worked out
_FITTED = 6  # proposals at given bits that are made to fit
_TRIES = (12, 400)  # widths that are worked out, at least and at most


@dataclass(frozen=True, eq=False)
class Allocation:
    """How many classes of each curve go, the bits (M,) of each layer, and what that makes.

    Filters that are gone have 0 bits; so may others. loss is prune_scale·Σ curves + Σ distortion,
    cost is the one below the budget, fixed_cost included.
    """

    gone: tuple[int, ...]
    bits: tuple[Integers, ...]
    cost: float
    loss: float


def allocate(
    layers: Sequence[LayerCost],
    curves: Sequence[WidthCurve],
    budget: float,
    *,
    fixed_cost: float = 0.0,
    bits: int | None = None,
    widths: Sequence[int] | None = None,
    round_to: int = 1,
    min_width: int = 1,
    prune_scale: float = 1.0,
) -> Allocation:
    """Return widths and bits with fixed_cost + their cost ≤ budget and about the least loss.

    bits: all filters that are kept take this many, and only the widths are chosen.
    widths: how many classes of each curve are gone; only the bits are chosen.
    round_to: a group that loses any class keeps a multiple of this many (stays included).
    min_width: classes that a group keeps at least (stays included), if it has as many.
    prune_scale: what the losses of the curves are multiplied by.

    Raises:
        BudgetError: the cheapest choice costs more than the budget.
        VerificationError: a distortion or a loss is NaN or −inf.
    """
    places = {int(c): (g, n) for g, curve in enumerate(curves) for n, c in enumerate(curve.order)}
    if len(places) != sum(len(curve.order) for curve in curves):
        raise ValueError("a class stands in the curves twice")
    sizes = [len(curve.order) for curve in curves]
    losses = []
    for g, curve in enumerate(curves):
        loss = prune_scale * np.asarray(curve.loss, dtype=np.float64)
        if loss.shape != (sizes[g] + 1,):
            raise ValueError(f"curve {g}: {loss.size} losses for {sizes[g]} classes")
        given = None if widths is None else int(widths[g])
        losses.append(_allowed(loss, curve.stays, given, round_to, min_width))
    search = Widths([Layer(_checked(x, bits), places, sizes) for x in layers], losses)
    left = budget - fixed_cost
    least = search.totals(search.most(), np.inf)[1]
    if least > left:
        raise BudgetError(
            f"a cost of {budget:.6g} cannot be reached: the cheapest widths and bits cost "
            f"{least + fixed_cost:.6g}. Raise the target, or allow fewer bits or narrower layers."
        )
    best = _Best(search, left, free=bits is None)
    best.search()
    total, cost, chosen = best.result
    return Allocation(tuple(int(n) for n in best.k), chosen, cost + fixed_cost, total)


def _checked(layer: LayerCost, bits: int | None) -> LayerCost:
    """Return the layer, with no choice of bits but this one if it is given."""
    D = np.asarray(layer.distortion, dtype=np.float64)
    if D.ndim != 2 or D.shape[0] != len(layer.filters):
        raise ValueError(f"distortion {D.shape} must be (M, B) for {len(layer.filters)} filters")
    if np.isnan(D).any() or np.isneginf(D).any():
        raise VerificationError("the distortion of a filter is not a number")
    if bits is not None:
        if not 0 <= bits < D.shape[1]:
            raise ValueError(f"bits must be below {D.shape[1]}")
        D = np.where(np.arange(D.shape[1]) == bits, D, np.inf)
    if not np.isfinite(D).any(axis=1).all():
        raise ValueError("a filter has no number of bits that is allowed")
    return LayerCost(layer.unit, layer.filters, layer.inputs, D)


def _allowed(loss: Floats, stays: int, given: int | None, round_to: int, min_width: int) -> Floats:
    """Return the losses of a curve with inf for the widths that are not allowed."""
    if np.isnan(loss).any() or np.isneginf(loss).any():
        raise VerificationError("the loss of a width is not a number")
    gone = np.arange(loss.size)
    kept = stays + loss.size - 1 - gone
    allowed = (gone == 0) | ((kept % round_to == 0) & (kept >= min_width))
    if given is not None:
        allowed = gone == given
    if not np.isfinite(loss[allowed]).any():
        raise ValueError("a curve has no width that is allowed")
    return np.where(allowed, loss, np.inf)


Result = tuple[float, float, tuple[Integers, ...]]  # loss, cost, bits


class _Best:
    """The best widths so far."""

    def __init__(self, widths: Widths, budget: float, *, free: bool) -> None:
        self._widths, self._budget, self._free = widths, budget, free
        self._seen: set[bytes] = set()
        self.k = np.zeros(len(widths.losses), dtype=np.int64)
        self.result: Result = (np.inf, 0.0, ())
        self._price = 0.0
        edges = sum(layer.edges + layer.curve.size for layer in widths.layers)
        self._tries = int(np.clip(_WORK / max(edges, 1), *_TRIES))

    def search(self) -> None:
        """Try what the prices propose, then the neighbours of the best."""
        proposals = {k.tobytes(): k for k in self._widths.proposals(self._budget)}
        ranked = sorted(proposals.values(), key=self._rank)
        ranked = ranked[: self._tries if self._free else _FITTED]
        if self._free:
            ranked.sort(key=lambda k: self._widths.bound(k, self._budget)[0])
        for k in ranked:
            self._try(k)
        if not self.result[2]:
            self._try(self._widths.most())
        tries = self._tries
        better = True
        while better and tries > 0:
            better = False
            for k in self._widths.neighbours(self.k, self._price):
                tries -= 1
                better = self._try(k)
                if better or tries <= 0:
                    break

    def _rank(self, k: Integers) -> float:
        """Return about the loss that these widths end with."""
        price = self._widths.price
        loss, cost = self._widths.totals(k, price if self._free else np.inf)
        return loss + price * (cost - self._budget)

    def _try(self, k: Integers) -> bool:
        """Work these widths out, unless they cannot be better; say whether they are."""
        price = self._widths.price
        if self._free:
            if k.tobytes() in self._seen:
                return False
            self._seen.add(k.tobytes())
            bound, price = self._widths.bound(k, self._budget)
            if bound >= self.result[0] * (1 - 1e-12):
                return False
        else:
            fitting = self._widths.fit(k, self._budget)
            if fitting is None or fitting.tobytes() in self._seen:
                return False
            k = fitting
            self._seen.add(k.tobytes())
        result = self._settle(k)
        if result[0] >= self.result[0] * (1 - 1e-12):
            return False
        self.k, self.result, self._price = k, result, price
        return True

    def _settle(self, k: Integers) -> Result:
        """Allocate the bits at these widths; they fit at the least bits."""
        layers = self._widths.layers
        parts = [layer.settled(k) for layer in layers]
        width = max((D.shape[1] for _, D, _ in parts), default=1)
        D = np.concatenate(
            [np.full((0, width), np.inf)]
            + [
                np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=np.inf)
                for _, x, _ in parts
            ]
        )
        rate = np.concatenate([np.zeros(0), *(np.full(f.size, r) for f, _, r in parts)])
        b = _bits(D, rate, self._budget)
        loss = sum(float(c[n]) for c, n in zip(self._widths.losses, k, strict=True))
        loss += float(D[np.arange(b.size), b].sum())
        chosen, at = [], 0
        for layer, (f, _, _) in zip(layers, parts, strict=True):
            mine = np.zeros(layer.curve.size, dtype=np.int64)
            mine[f] = b[at : at + f.size]
            at += f.size
            chosen.append(mine)
        return loss, float((rate * b).sum()), tuple(chosen)


def _bits(D: Floats, rate: Floats, budget: float) -> Integers:
    """Return the bits (F,), with D inf where they are not allowed."""
    known = np.isfinite(D)
    least = known.argmax(axis=1)
    # Bits that are not allowed are as good as the next fewer ones, and thus never worth a cost.
    instead = np.maximum.accumulate(np.where(known, np.arange(D.shape[1]), -1), axis=1)
    instead = np.maximum(instead, least[:, None])
    rows = np.arange(least.size)
    filled = np.where(known, D, D[rows[:, None], instead])
    filled[np.arange(D.shape[1]) < least[:, None]] += 1.0
    cost = rate[:, None] * np.arange(D.shape[1])
    budget = max(budget, float(cost[rows, least].sum()))  # they fit, but for rounding errors
    return np.asarray(instead[rows, allocate_bits(filled, cost, budget, minimum_bits=least)])
