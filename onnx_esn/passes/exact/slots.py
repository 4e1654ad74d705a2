"""All slots of all readers in one row: which of them can be spared, which read the same.

What holds for one choice of channels that go need not hold for another: the more filters go, the
more slots nobody reads; the more channels go, the fewer are left to take over.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.passes.exact.readers import Reading
from onnx_esn.passes.exact.values import Values

Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]


class Slots:
    """A row of slots.

    Attributes:
        readers: the readers.
        bounds: where the slots of each reader begin, and the end.
        classes: the class of each slot; −1 where it has none.
        reader: index of the reader of each slot.
        keys: equal where slots of one reader read equal values and can be added up.
        constants: for each reader, the values (groups, share) of its cells; NaN: not constant.
        unread: slots whose weights are zero in all filters that are left.
        spare: slots that are unread, or read a constant that the bias can stand for.
        of_class: the slots of each class.
    """

    def __init__(self, analysis: Analysis, reading: Reading, values: Values) -> None:
        self.analysis, self.readers = analysis, reading.readers
        classes = analysis.classes
        self.constants = [values.constants(r.cells) for r in self.readers]
        sizes = [r.labels.size for r in self.readers]
        self.bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        empty = [np.zeros(0, np.int64)]
        self.classes = np.concatenate([*empty, *(classes.of[r.labels] for r in self.readers)])
        self.reader = np.repeat(np.arange(len(sizes)), sizes)
        self.keys = np.concatenate([*empty, *self._numbered_keys()])
        self.unread = np.zeros(self.classes.size, np.bool_)
        self.spare = np.zeros(self.classes.size, np.bool_)
        self._kept: list[bytes] = [b""] * len(sizes)
        order = np.argsort(self.classes, kind="stable")
        starts = np.searchsorted(self.classes[order], np.arange(len(classes) + 1))
        self.of_class = np.split(order, starts)[1:]

    def _numbered_keys(self) -> list[Integers]:
        result, start = [], 0
        for r in self.readers:
            keys = r.keys()
            result.append(keys + start)
            start += int(keys.max(initial=-1)) + 1
        return result

    def look(self, removed: Mask) -> None:
        """Work out which slots can be spared once classes are removed."""
        gone = self.analysis.removed_labels(removed)
        for k, r in enumerate(self.readers):
            kept = ~gone[r.filters]
            if self._kept[k] == kept.tobytes():
                continue
            self._kept[k] = kept.tobytes()
            unread, still = r.free_cells(self.constants[k], kept)
            at = slice(self.bounds[k], self.bounds[k + 1])
            self.unread[at] = r.slots(unread)
            self.spare[at] = r.slots(unread | still)

    def left(self, removed: Mask) -> Mask:
        """Slots that stay."""
        return np.asarray(~np.append(removed, False)[self.classes])

    def count(self, removed: Mask) -> Integers:
        """Slots that stay, by key."""
        return np.bincount(self.keys[self.left(removed)], minlength=self.keys.max(initial=0) + 1)

    def partnered(self, removed: Mask) -> Mask:
        """Slots that stay beside one of another class, or of none, that reads the same."""
        left = self.left(removed)
        width = int(self.classes.max(initial=0)) + 2
        pairs, where = np.unique(self.keys * width + self.classes + 1, return_inverse=True)
        own = np.bincount(where.reshape(-1), weights=left, minlength=pairs.size)
        return np.asarray((self.count(removed)[self.keys] > own[where.reshape(-1)]) & left)

    def unmergeable(self, slots: Mask) -> Mask:
        """Those of `slots` whose weights cannot be added to others."""
        result = np.zeros_like(slots)
        for k in np.unique(self.reader[slots]):
            if self.readers[k].locked(self.analysis):
                result |= slots & (self.reader == k)
        return result

    def settled(self, removed: Mask) -> Mask:
        """The classes of `removed` that can go when the others stay: less and less, until all can.

        A filter that stays after all reads its channels again, so these may have to stay too.
        """
        removed = removed.copy()
        while True:
            self.look(removed)
            need = ~self.left(removed) & ~self.spare
            alone = need & (self.count(removed)[self.keys] == 0)
            stuck = alone | self.unmergeable(need)
            if not stuck.any():
                return removed
            removed[self.classes[stuck]] = False
