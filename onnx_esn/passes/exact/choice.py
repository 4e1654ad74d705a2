"""Which classes are redundant: each layer that reads them can do without.

It can where its weights for the channel are all zero, where the channel is a constant that its
bias can hold, or where it reads the same values from another channel, whose weights then take
over. What goes makes more go: a filter that is gone reads nothing. If widths are to be multiples of
a number, the last to go come back first: what went before them did not need them to go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.exact.readers import Reader, Reading
from onnx_esn.passes.exact.slots import Slots
from onnx_esn.passes.exact.values import Values
from onnx_esn.passes.pruning.widths import give_back

Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]

KINDS = ("dead", "unread", "duplicate")
_ROUNDS = 1000


@dataclass(frozen=True)
class Choice:
    """What can go.

    Attributes:
        removed: per class.
        kind: per class, index in `KINDS` of why it went; −1 where it stays.
        notes: what stays although its channels are constant or equal to others.
    """

    removed: Mask
    kind: Integers
    notes: tuple[Skipped, ...]


def choose_redundant(
    analysis: Analysis, reading: Reading, values: Values, *, round_to: int = 1, min_width: int = 1
) -> Choice:
    """Choose classes until nothing more can go; then give back what the widths ask for."""
    chooser = _Chooser(analysis, reading, values)
    for _ in range(_ROUNDS):
        if not chooser.round():
            break
    return chooser.choice(round_to, min_width)


class _Chooser:
    """Removes classes one by one.

    Attributes:
        removed: per class.
        when: per class, how many went before it.
        kind: per class; see `Choice`.
        fixed: classes that stay, whoever reads them.
        count: slots that are left, by key.
        owed: keys that took over from a slot.
        stay: classes that are left, by constraint.
    """

    def __init__(self, analysis: Analysis, reading: Reading, values: Values) -> None:
        self.analysis, self.slots = analysis, Slots(analysis, reading, values)
        classes = analysis.classes
        self.removed = np.zeros(len(classes), np.bool_)
        self.when = np.full(len(classes), -1.0)
        self.kind = np.full(len(classes), -1)
        self.fixed = classes.locked.copy()
        self.fixed[_without_filters(analysis)] = True
        bound = classes.of[reading.bound]
        self.fixed[bound[bound >= 0]] = True
        self.count = self.slots.count(self.removed)
        self.owed = np.zeros(self.count.size, np.bool_)
        self.members: list[list[int]] = [[] for _ in range(len(classes))]
        self.stay = [c.size for c in analysis.constraints]
        for k, inside in enumerate(analysis.constraints):
            for c in inside:
                self.members[c].append(k)

    def round(self) -> bool:
        """Remove what can go as things stand; whether anything went."""
        slots = self.slots
        slots.look(self.removed)
        partner = slots.partnered(self.removed)
        stuck = ~slots.spare & (~partner | slots.unmergeable(partner & ~slots.spare))
        hard = self.fixed | self.removed
        hard[slots.classes[stuck & (slots.classes >= 0)]] = True
        alone = np.ones_like(hard)
        alone[slots.classes[~slots.spare & (slots.classes >= 0)]] = False
        # What is spare goes first; of equal channels, the first one stays.
        order = [*np.flatnonzero(alone & ~hard)[::-1], *np.flatnonzero(~alone & ~hard)[::-1]]
        return sum([self._remove(int(c)) for c in order]) > 0

    def _remove(self, c: int) -> bool:
        of, keys = self.slots.of_class[c], self.slots.keys
        need = of[~self.slots.spare[of]]
        # A spare slot may have taken over from others: one of them has to stay.
        asked = keys[of[~self.slots.spare[of] | self.owed[keys[of]]]]
        if asked.size:
            mine = dict.fromkeys(asked.tolist(), 0)
            for k in keys[of].tolist():
                if k in mine:
                    mine[k] += 1
            if any(self.count[k] <= n for k, n in mine.items()):
                return False
        if any(self.stay[k] <= 1 for k in self.members[c]):
            return False
        for k in self.members[c]:
            self.stay[k] -= 1
        np.subtract.at(self.count, keys[of], 1)
        self.owed[keys[need]] = True
        self.when[c] = self.removed.sum()
        self.removed[c] = True
        dead = of.size > 0 and not self.slots.unread[of].all()
        self.kind[c] = KINDS.index("duplicate" if need.size else "dead" if dead else "unread")
        return True

    def choice(self, round_to: int, min_width: int) -> Choice:
        """What is removed, less what the widths ask for."""
        removed, before = self.removed, None
        while before is None or (removed != before).any():
            before = removed
            removed = give_back(self.analysis, removed, self.when, round_to, min_width)
            removed = self.slots.settled(removed)
        back = self.removed & ~removed
        self.removed = removed
        self.kind[back] = -1
        self.fixed |= back
        need = ~self.slots.left(removed) & ~self.slots.spare
        self.kind[self.slots.classes[need]] = KINDS.index("duplicate")
        return Choice(
            removed, self.kind, (*self._kept_for_widths(back, round_to, min_width), *self._notes())
        )

    def _kept_for_widths(self, back: Mask, round_to: int, min_width: int) -> list[Skipped]:
        """Groups to which channels were given back."""
        why = [f"multiples of {round_to}"] if round_to > 1 else []
        why += [f"at least {min_width}"] if min_width > 1 else []
        text = f"some redundant channels stay, to keep widths {' and '.join(why)}"
        groups = self.analysis.groups
        return [Skipped(g.name, text) for g in groups if back[g.classes].any()]

    def _notes(self) -> list[Skipped]:
        """Constants that zero padding meets, duplicates whose weights cannot be added up."""
        slots, result = self.slots, list[Skipped]()
        left = ~slots.spare & (slots.classes >= 0)
        left[left] = ~(self.removed | self.fixed)[slots.classes[left]]
        partner = slots.partnered(self.removed)
        for k, r in enumerate(slots.readers):
            at = slice(slots.bounds[k], slots.bounds[k + 1])
            still = left[at] & r.slots(~np.isnan(slots.constants[k]))
            result += _note(r, still, _padding(r))
            if (left & partner)[at].any() and r.locked(self.analysis):
                twice = left[at] & partner[at] & ~still
                result += _note(r, twice, f"equal input channels stay: {r.locked(self.analysis)}")
        return result


def _without_filters(analysis: Analysis) -> Mask:
    """Classes that hold no filter, but what fills a Concat or Pad: a plan has no name for them."""
    result = np.ones(len(analysis.classes), np.bool_)
    for x in analysis.layers:
        first = analysis.first_labels.get(x.index)
        if first is not None:
            result[analysis.classes.of[first : first + x.filters]] = False
    return result


def _padding(r: Reader) -> str:
    what = "its stride leaves gaps" if r.layer.op == "ConvTranspose" else "it pads them with zeros"
    return f"constant input channels stay: {what}"


def _note(r: Reader, slots: Mask, text: str) -> list[Skipped]:
    return [Skipped(r.layer.name, f"{int(slots.sum())} {text}")] if slots.any() else []
