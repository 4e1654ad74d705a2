"""Which classes `prune` removes: a ratio of the filters, or as few as bring MACs below a target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_esn.errors import BudgetError
from onnx_esn.graph.channel_groups import Analysis
from onnx_esn.graph.channel_labels import Labels
from onnx_esn.numerics.selection import select_removals

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

# Restoring classes one by one after the bisection: enough to use up the last filter's worth.
_RESTORE_TRIES = 256


class MacCounter:
    """MACs of the model once labels are removed.

    A layer has as many as its output has elements (for a ConvTranspose: its input), times what
    each of them reads (is read by). Both fall with the labels that sit there.
    """

    def __init__(self, analysis: Analysis) -> None:
        p = analysis.propagation
        reads = {(c.node, c.role): c.labels for c in p.claims if c.role != "param"}
        self.layers: list[tuple[int, list[Labels]]] = []
        for layer in analysis.layers:
            if layer.macs is None:
                continue
            if layer.op == "ConvTranspose":
                data = p.labels.get(analysis.model.graph.node[layer.index].input[0])
                # The filters of one group; whole groups go with the input's channels.
                inner = None if layer.index in p.groups else reads.get((layer.index, "filter"))
                factors = [data, inner]
            else:
                factors = [p.labels.get(layer.output), reads.get((layer.index, "input"))]
            self.layers.append((layer.macs, [f.reshape(-1) for f in factors if f is not None]))

    def __call__(self, removed: Mask) -> int:
        """MACs with the labels in `removed` (per label) gone."""
        total = 0
        for macs, factors in self.layers:
            for labels in factors:
                macs = macs * int((~removed[labels]).sum()) // labels.size
            total += macs
        return total


@dataclass(frozen=True)
class Selector:
    """Chooses classes by ascending score.

    Attributes:
        analysis: the labelled model.
        score: per class; infinite where it holds no filter.
        filters: filters per class.
        scope: "layer" takes the same share of every group, "global" ranks all classes together.
        round_to: widths of layers that lose filters become multiples of this.
    """

    analysis: Analysis
    score: Floats
    filters: Floats
    scope: str
    round_to: int

    def prunable(self) -> Mask:
        """Classes that may go and hold filters."""
        return ~self.analysis.classes.locked & (self.filters > 0) & np.isfinite(self.score)

    def _priority(self) -> Floats:
        if self.scope == "global":
            return self.score
        priority = np.full(self.score.size, np.inf)
        for group in self.analysis.groups:
            classes = group.classes
            order = classes[np.argsort(self.score[classes], kind="stable")]
            priority[order] = (np.arange(order.size) + 0.5) / max(order.size, 1)
        return priority

    def by_ratio(self, ratio: float) -> Mask:
        """Remove at most `ratio` of the prunable filters; per class."""
        free = np.flatnonzero(self.prunable())
        return self._take(free, self._priority(), ratio * float(self.filters[free].sum()))

    def _take(self, free: NDArray[np.int64], priority: Floats, budget: float) -> Mask:
        position = np.full(self.score.size, -1)
        position[free] = np.arange(free.size)
        constraints = []
        for members in self.analysis.constraints:
            inside = position[members]
            # A set that also holds classes which stay for sure needs no guarding.
            if (inside >= 0).all():
                constraints.append(inside)
        removed = np.zeros(self.score.size, np.bool_)
        removed[free] = select_removals(
            priority[free], self.filters[free], constraints, budget=budget
        )
        return self._rounded(removed) if self.round_to > 1 else removed

    def _rounded(self, removed: Mask) -> Mask:
        """Give classes back, best first, until every layer's width is a multiple or whole."""
        removed = removed.copy()
        of, first = self.analysis.classes.of, self.analysis.first_labels
        layers = {
            x.name: of[first[x.index] : first[x.index] + x.filters]
            for x in self.analysis.layers
            if x.index in first
        }
        for group in self.analysis.groups:
            members = [layers[m.node] for m in group.members if m.node in layers]
            gone = group.classes[removed[group.classes]]
            back = list(gone[np.argsort(self.score[gone], kind="stable")])
            while back and self._uneven(members, removed):
                removed[back.pop()] = False
        return removed

    def _uneven(self, members: list[Labels], removed: Mask) -> bool:
        kept = [int((~removed[m]).sum()) for m in members]
        return any(k % self.round_to and k < m.size for k, m in zip(kept, members, strict=True))

    def by_macs(self, target: float) -> Mask:
        """Remove as few filters as bring the MACs to `target` or just below.

        Raises:
            BudgetError: even the narrowest model costs more; the message says how much.
        """
        count = MacCounter(self.analysis)
        labels = self.analysis.removed_labels
        free = np.flatnonzero(self.prunable())
        priority = self._priority()
        low, high = 0.0, float(self.filters[free].sum())
        removed = self._take(free, priority, high)
        least = count(labels(removed))
        if least > target:
            left = "one filter" if self.round_to == 1 else f"a multiple of {self.round_to} filters"
            raise BudgetError(
                f"{target:,.0f} MACs cannot be reached by pruning: with {left} left per group "
                f"{least:,} remain; ask for at least that, or exclude fewer layers"
            )
        if count(labels(np.zeros_like(removed))) <= target:
            return np.zeros_like(removed)
        while high - low >= 1.0:
            middle = np.floor((low + high) / 2)
            trial = self._take(free, priority, float(middle))
            if count(labels(trial)) <= target:
                high, removed = float(middle), trial
            else:
                low = float(middle)
                if high - low <= 1.0:
                    break
        if self.round_to > 1:
            return removed
        gone = np.flatnonzero(removed)
        for c in gone[np.argsort(priority[gone], kind="stable")][::-1][:_RESTORE_TRIES]:
            removed[c] = False
            if count(labels(removed)) > target:
                removed[c] = True
        return removed
