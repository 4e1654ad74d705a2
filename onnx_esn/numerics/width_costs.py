"""What a choice of widths and bits costs and loses, and what each other width would.

    cost = Σ_layers unit · (inputs kept) · Σ_{filters kept} bits
    loss = Σ_curves loss_g(classes gone) + Σ_{filters kept} distortion(bits)

Given the widths and a price λ of cost, filters separate: a filter takes the bits that minimise
D + λ·unit·inputs·b, which is a vertex of the lower convex hull of D(b). The edges of all hulls of a
layer, sorted by slope once, give the layer's loss and bits at any price as a prefix sum. A width
changes the price of the bits of those that read the channels, so that one look-up for each width
answers what the best bits at every width lose and cost: exact, convex or not.

Source: the hulls are those of Shoham and Gersho (1988), see `bit_allocation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.midrise import Floats


@dataclass(frozen=True, eq=False)
class LayerCost:
    """One layer: which channels it makes, which it reads, and what its bits cost and lose.

    unit: MACs per filter and input channel, Hout·Wout·taps.
    filters: class id (M,) of each filter; −1: it cannot go.
    inputs: class id (C,) of each channel that every filter contracts; −1: it stays. None where
        what a filter costs does not depend on other channels (depthwise): unit is MACs per filter.
    distortion: loss (M, B) of each filter at 0..B−1 bits, in the unit of the curves' losses;
        inf where these bits are not allowed.
    """

    unit: float
    filters: Integers
    inputs: Integers | None
    distortion: Floats


@dataclass(frozen=True, eq=False)
class WidthCurve:
    """The class ids (n,) of a group in the order in which they go, and the losses (n + 1,).

    stays is how many more classes the group has, which never go: the width is stays + n − gone.
    A loss of inf forbids a width.
    """

    order: Integers
    loss: Floats
    stays: int = 0


class Layer:
    """A layer's costs, ready for look-ups. k is (G,): how many classes of each curve are gone."""

    def __init__(
        self, cost: LayerCost, places: dict[int, tuple[int, int]], sizes: Sequence[int]
    ) -> None:
        self.unit = float(cost.unit)
        self._sizes = sizes
        self.distortion = np.asarray(cost.distortion, dtype=np.float64)
        at = [places.get(int(c), (-1, 0)) for c in cost.filters]
        self.curve = np.array([g for g, _ in at], dtype=np.int64)
        self.position = np.array([p for _, p in at], dtype=np.int64)
        self.writes = {int(g): np.flatnonzero(self.curve == g) for g in np.unique(self.curve)}
        self.writes.pop(-1, None)
        self.always = 1 if cost.inputs is None else 0
        self.reads: dict[int, Integers] = {}  # inputs that are left (n + 1,) after k are gone
        counts: dict[int, Integers] = {}
        for c in () if cost.inputs is None else cost.inputs:
            g, position = places.get(int(c), (-1, 0))
            if g < 0:
                self.always += 1
            else:
                counts.setdefault(g, np.zeros(sizes[g] + 1, dtype=np.int64))[position] += 1
        for g, count in counts.items():
            self.reads[g] = count[::-1].cumsum()[::-1]
        self._edges()
        self._sums: dict[tuple[int, ...], tuple[float, float, Floats, Floats]] = {}

    def _edges(self) -> None:
        """Sort the edges of all hulls from the steepest on; a filter's stay in their order."""
        D = self.distortion
        rows, b = np.arange(D.shape[0]), np.arange(D.shape[1])
        self.least = np.asarray(np.isfinite(D).argmax(axis=1), dtype=np.int64)
        self.start = D[rows, self.least]
        at, steepest = self.least.copy(), np.full(rows.size, np.inf)
        parts: list[tuple[Floats, Integers, Integers, Floats]] = []
        while rows.size:
            saved, extra = D[rows, at][:, None] - D, b - at[:, None]
            useful = np.isfinite(D) & (saved > 0) & (extra > 0)
            slope = np.where(useful, saved, -1.0) / np.where(useful, extra, 1)
            to = D.shape[1] - 1 - slope[:, ::-1].argmax(axis=1)
            f = np.flatnonzero(slope[rows, to] > 0)
            if not f.size:
                break
            steepest[f] = np.minimum(steepest[f], slope[f, to[f]])
            parts.append((-steepest[f], f, to[f] - at[f], saved[f, to[f]]))
            at[f] = to[f]
        falls = np.concatenate([p[0] for p in parts]) if parts else np.zeros(0)
        order = np.argsort(falls, kind="stable")
        whole = np.zeros(0, dtype=np.int64)
        self._falls = falls[order]  # −slope
        self._filter = np.concatenate([whole, *(p[1] for p in parts)])[order]
        self._extra = np.concatenate([np.zeros(0), *(p[2] for p in parts)])[order]
        self._saved = np.concatenate([np.zeros(0), *(p[3] for p in parts)])[order]

    @property
    def edges(self) -> int:
        """How many edges the hulls have."""
        return self._falls.size

    def kept(self, k: Integers) -> Integers:
        """Return the indices of the filters that are left."""
        return np.flatnonzero(self.position >= np.append(k, 0)[self.curve])

    def inputs(self, k: Integers) -> int:
        """Return how many inputs are left; 1 if the costs do not depend on them."""
        return self.always + sum(int(left[k[g]]) for g, left in self.reads.items())

    def sums(self, k: Integers) -> tuple[float, float, Floats, Floats]:
        """Return the least bits and their loss, and what the steepest edges (E + 1,) add to each.

        All of them over the filters that are left; loss is saved, so it is to be taken off.
        """
        key = tuple(int(k[g]) for g in self.writes)
        if key not in self._sums:
            if len(self._sums) > 3:  # a walk over the widths comes back to the last few only
                self._sums.pop(next(iter(self._sums)))
            here = np.zeros(self.curve.size, dtype=np.bool_)
            here[self.kept(k)] = True
            edge = here[self._filter]
            self._sums[key] = (
                float(self.least[here].sum()),
                float(self.start[here].sum()),
                np.append(0.0, np.cumsum(self._extra * edge)),
                np.append(0.0, np.cumsum(self._saved * edge)),
            )
        return self._sums[key]

    def totals(self, k: Integers, price: float) -> tuple[float, float]:
        """Return the loss and the cost at the best bits for a price of cost."""
        rate = self.unit * self.inputs(k)
        bits, loss, extra, saved = self.sums(k)
        e = int(np.searchsorted(self._falls, -price * rate))
        return loss - float(saved[e]), rate * (bits + float(extra[e]))

    def profile(self, g: int, k: Integers, price: float) -> tuple[Floats, Floats]:
        """Return loss and cost (n + 1,) for each number of classes gone from curve g.

        The loss is up to a constant. Both are at the best bits for the price, save for a layer
        that makes and reads channels of g: its filters have the bits that are best now. At a
        price of inf they are at the least bits.
        """
        if g not in self.writes:
            rates = self.unit * (self.inputs(k) - self.reads[g][k[g]] + self.reads[g])
            bits, loss, extra, saved = self.sums(k)
            with np.errstate(invalid="ignore"):  # inf·0: what costs nothing has its best bits
                e = np.searchsorted(self._falls, -price * rates)
            return loss - saved[e], rates * (bits + extra[e])
        rate = self.unit * self.inputs(k)
        e = np.searchsorted(self._falls, -price * rate)
        M = self.curve.size
        bits_of = self.least + np.bincount(self._filter[:e], self._extra[:e], M)
        loss_of = self.start - np.bincount(self._filter[:e], self._saved[:e], M)
        f = self.writes[g]
        bits, _, extra, _ = self.sums(k)
        mine = self._left(g, np.asarray(bits_of[f], dtype=np.float64))
        all_bits = mine - mine[k[g]] + bits + extra[e]
        if g not in self.reads:
            return self._left(g, loss_of[f]), rate * all_bits
        rates = self.unit * (self.inputs(k) - self.reads[g][k[g]] + self.reads[g])
        return self._left(g, loss_of[f]), rates * all_bits

    def settled(self, k: Integers) -> tuple[Integers, Floats, float]:
        """Return the filters that are left, their distortion, and the cost of one bit of one."""
        f = self.kept(k)
        return f, self.distortion[f], self.unit * self.inputs(k)

    def _left(self, g: int, value: Floats) -> Floats:
        """Return the sum (n + 1,) of the values of the filters of curve g that each k leaves."""
        total = np.bincount(self.position[self.writes[g]], value, self._sizes[g] + 1)
        return np.asarray(total[::-1].cumsum()[::-1])
