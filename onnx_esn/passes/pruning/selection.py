"""Which classes `prune` removes: a ratio of the filters, or as few as bring MACs below a target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_esn.errors import BudgetError
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels
from onnx_esn.numerics.selection import select_removals
from onnx_esn.passes.pruning.macs import MacCounter as MacCounter
from onnx_esn.passes.pruning.steering import filters_of
from onnx_esn.passes.pruning.widths import give_back

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

# Restoring classes one by one after the bisection: enough to use up the last filter's worth.
_RESTORE_TRIES = 256


@dataclass(frozen=True)
class Selector:
    """Chooses classes by ascending score.

    Attributes:
        analysis: the labelled model.
        score: per class; infinite where it holds no filter.
        filters: filters per class.
        scope: "layer" takes the same share of every group, "global" ranks all classes together.
        round_to: widths of layers that lose filters become multiples of this.
        min_width: filters that every layer keeps; one with fewer keeps all.
    """

    analysis: Analysis
    score: Floats
    filters: Floats
    scope: str
    round_to: int = 1
    min_width: int = 1

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
            priority[order] = self._shares(order)[0]
        return priority

    def _shares(self, order: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """For classes of a group in order: the share of its filters up to their middle and start.

        A class of a stage may hold one filter or many; it is filters that a ratio speaks of.
        """
        held = self.filters[order]
        total = max(float(held.sum()), 1.0)
        start = np.cumsum(held) - held
        return (start + held / 2) / total, start / total

    def by_ratio(self, ratio: float) -> Mask:
        """Remove at most `ratio` of the prunable filters; per class.

        With scope "layer", what a group has to keep is not made up for by the others.
        """
        priority = self._priority()
        late = np.zeros(self.score.size, np.int64)
        if self.scope == "layer":
            for group in self.analysis.groups:
                order = group.classes[np.argsort(priority[group.classes], kind="stable")]
                late[order] = self._shares(order)[1] > ratio - 1e-9
        total = ratio * float(self.filters[self._free].sum())
        return self._take(priority, np.array([total, 0.0]), late)

    def by_group_ratios(self, ratios: Floats) -> Mask:
        """Remove at most `ratios[i]` of the prunable filters of group i; per class."""
        account = np.full(self.score.size, ratios.size)  # of those that no group may lose
        for i, group in enumerate(self.analysis.groups):
            account[group.classes] = i
        held = np.bincount(account[self._free], self.filters[self._free], ratios.size + 1)
        return self._take(self.score, np.append(ratios, 0.0) * held, account)

    @cached_property
    def _free(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.prunable())

    @cached_property
    def _layers(self) -> dict[str, Labels]:
        """The class of each filter, by layer."""
        of = self.analysis.classes.of
        return {name: of[labels] for name, labels in filters_of(self.analysis).items()}

    @cached_property
    def _limits(self) -> tuple[list[Labels], list[int]]:
        """Sets of free classes (by their place in `_free`), and how many of each must stay."""
        position = np.full(self.score.size, -1)
        position[self._free] = np.arange(self._free.size)
        # A set that also holds classes which stay for sure needs no guarding.
        sets = [position[members] for members in self.analysis.constraints]
        sets = [inside for inside in sets if (inside >= 0).all()]
        least = [1] * len(sets)
        if self.min_width > 1:
            for of in self._layers.values():
                inside = position[of]
                inside = inside[inside >= 0]
                sets.append(inside)
                least.append(min(self.min_width, of.size) - (of.size - inside.size))
        return sets, least

    def _take(self, priority: Floats, budget: Floats | float, account: Any = 0) -> Mask:
        sets, least = self._limits
        free = self._free
        removed = np.zeros(self.score.size, np.bool_)
        removed[free] = select_removals(
            priority[free],
            self.filters[free],
            sets,
            budget=budget,
            minimum=least,
            account=np.broadcast_to(account, self.score.shape)[free],
        )
        return give_back(self.analysis, removed, self.score, self.round_to)

    def _narrowest(self) -> str:
        """What is left of each group, in words."""
        if self.round_to > 1:
            left = f"a multiple of {self.round_to} filters"
            return left if self.min_width == 1 else f"{left}, at least {self.min_width},"
        return "one filter" if self.min_width == 1 else f"{self.min_width} filters"

    def by_macs(self, target: float) -> Mask:
        """Remove as few filters as bring the MACs to `target` or just below.

        Raises:
            BudgetError: even the narrowest model costs more; the message says how much.
        """
        count = MacCounter(self.analysis)
        labels = self.analysis.removed_labels
        priority = self._priority()
        low, high = 0.0, float(self.filters[self._free].sum())
        removed = self._take(priority, high)
        least = count(labels(removed))
        if least > target:
            raise BudgetError(
                f"{target:,.0f} MACs cannot be reached by pruning: with {self._narrowest()} left "
                f"per group {least:,} remain; ask for at least that, or exclude fewer layers"
            )
        if count(labels(np.zeros_like(removed))) <= target:
            return np.zeros_like(removed)
        while high - low >= 1.0:
            middle = np.floor((low + high) / 2)
            trial = self._take(priority, float(middle))
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
