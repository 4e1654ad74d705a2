"""Which classes are redundant: each layer that reads them can do without.

It can where its weights for the channel are all zero, where the channel is a constant that its
bias can hold, or where it reads the same values from another channel, whose weights then take
over. What goes makes more go: a filter that is gone reads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_esn.graph.channel_groups import Analysis
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.exact_readers import Reader, Reading
from onnx_esn.passes.exact_values import Values

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


def choose_redundant(analysis: Analysis, reading: Reading, values: Values) -> Choice:
    """Choose classes until nothing more can go."""
    chooser = _Chooser(analysis, reading, values)
    for _ in range(_ROUNDS):
        if not chooser.round():
            break
    return Choice(chooser.removed, chooser.kind, chooser.notes())


class _Chooser:
    """Every slot of every reader in one row: its class, what it reads, whether it can be spared."""

    def __init__(self, analysis: Analysis, reading: Reading, values: Values) -> None:
        self.analysis, self.readers = analysis, reading.readers
        classes = analysis.classes
        self.removed = np.zeros(len(classes), np.bool_)
        self.kind = np.full(len(classes), -1)
        self.fixed = classes.locked.copy()
        self.fixed[_without_filters(analysis)] = True
        bound = classes.of[reading.bound]
        self.fixed[bound[bound >= 0]] = True
        self.constants = [values.constants(r.cells) for r in self.readers]
        sizes = [r.labels.size for r in self.readers]
        self.bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        empty = [np.zeros(0, np.int64)]
        self.classes = np.concatenate([*empty, *(classes.of[r.labels] for r in self.readers)])
        self.reader = np.repeat(np.arange(len(sizes)), sizes)
        self.keys = np.concatenate([*empty, *self._keys()])
        self.count = np.bincount(self.keys, minlength=1)  # slots that are left, by key
        self.owed = np.zeros(self.count.size, np.bool_)  # keys that took over from a slot
        self.unread = np.zeros(self.classes.size, np.bool_)
        self.spare = np.zeros(self.classes.size, np.bool_)
        self.left: list[int | None] = [None] * len(sizes)
        order = np.argsort(self.classes, kind="stable")
        self.slots = np.split(
            order, np.searchsorted(self.classes[order], np.arange(len(classes) + 1))
        )[1:]
        self.members: list[list[int]] = [[] for _ in range(len(classes))]
        self.stay = [c.size for c in analysis.constraints]
        for k, inside in enumerate(analysis.constraints):
            for c in inside:
                self.members[c].append(k)

    def _keys(self) -> list[Integers]:
        result, start = [], 0
        for r in self.readers:
            keys = r.keys()
            result.append(keys + start)
            start += int(keys.max(initial=-1)) + 1
        return result

    def round(self) -> bool:
        """Remove what can go as things stand; whether anything went."""
        self._look()
        partner = self._partnered()
        stuck = ~self.spare & ~partner
        for k in np.unique(self.reader[partner & ~self.spare]):
            if self.readers[k].locked(self.analysis):
                stuck |= ~self.spare & (self.reader == k)
        hard = self.fixed | self.removed
        hard[self.classes[stuck & (self.classes >= 0)]] = True
        alone = np.ones_like(hard)
        alone[self.classes[~self.spare & (self.classes >= 0)]] = False
        # What is spare goes first; of equal channels, the first one stays.
        order = [*np.flatnonzero(alone & ~hard)[::-1], *np.flatnonzero(~alone & ~hard)[::-1]]
        return sum([self._remove(int(c)) for c in order]) > 0

    def _look(self) -> None:
        """Work out which slots the filters that are left can spare."""
        gone = self.analysis.removed_labels(self.removed)
        for k, r in enumerate(self.readers):
            kept = ~gone[r.filters]
            if self.left[k] == int(kept.sum()):
                continue
            self.left[k] = int(kept.sum())
            unread, still = r.free_cells(self.constants[k], kept)
            at = slice(self.bounds[k], self.bounds[k + 1])
            self.unread[at] = r.slots(unread)
            self.spare[at] = r.slots(unread | still)

    def _partnered(self) -> Mask:
        """Slots beside which a slot of another class, or of none, reads the same."""
        width = int(self.classes.max(initial=0)) + 2
        left = np.ones(self.classes.size, np.bool_)
        of = self.classes >= 0
        left[of] = ~self.removed[self.classes[of]]
        pairs, where = np.unique(self.keys * width + self.classes + 1, return_inverse=True)
        own = np.bincount(where.reshape(-1), weights=left, minlength=pairs.size)
        return np.asarray((self.count[self.keys] > own[where.reshape(-1)]) & left)

    def _remove(self, c: int) -> bool:
        slots = self.slots[c]
        need = slots[~self.spare[slots]]
        # A spare slot may have taken over from others: one of them has to stay.
        asked = self.keys[slots[~self.spare[slots] | self.owed[self.keys[slots]]]]
        if asked.size:
            mine = dict.fromkeys(asked.tolist(), 0)
            for k in self.keys[slots].tolist():
                if k in mine:
                    mine[k] += 1
            if any(self.count[k] <= n for k, n in mine.items()):
                return False
        if any(self.stay[k] <= 1 for k in self.members[c]):
            return False
        for k in self.members[c]:
            self.stay[k] -= 1
        np.subtract.at(self.count, self.keys[slots], 1)
        self.owed[self.keys[need]] = True
        self.removed[c] = True
        dead = slots.size > 0 and not self.unread[slots].all()
        self.kind[c] = KINDS.index("duplicate" if need.size else "dead" if dead else "unread")
        return True

    def notes(self) -> tuple[Skipped, ...]:
        """Constants that zero padding meets, duplicates whose weights cannot be added up."""
        result = []
        left = ~self.spare & (self.classes >= 0)
        left[left] = ~(self.removed | self.fixed)[self.classes[left]]
        partner = self._partnered()
        for k, r in enumerate(self.readers):
            at = slice(self.bounds[k], self.bounds[k + 1])
            still = left[at] & r.slots(~np.isnan(self.constants[k]))
            result += _note(r, still, _padding(r))
            if (left & partner)[at].any() and r.locked(self.analysis):
                twice = left[at] & partner[at] & ~still
                result += _note(r, twice, f"equal input channels stay: {r.locked(self.analysis)}")
        return tuple(result)


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
