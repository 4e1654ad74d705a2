"""Channel labels: which positions of which tensors stand or fall together.

Every filter of every weight-bearing layer issues one label (a positive integer; 0 means "carries
no label"). The rules of `propagation` run the graph on arrays of labels and record here which
labels are tied and which are locked. The tied sets are the *classes*: what can be removed is a
class, never a part of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_esn.graph.movement import compact
from onnx_esn.numerics.components import components

Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]

_FEW = 1 << 12
_AT_ONCE = 1 << 16


# By node, and which of its issues it is: the positions that are locked, by reason.
KnownLocks = dict[tuple[int, int], dict[str, Labels]]


@dataclass(frozen=True)
class Classes:
    """The tied sets of labels.

    Attributes:
        of: class index by label, shape (labels + 1,); `of[0]` is -1.
        locked: per class, whether it must stay.
        reasons: per class, why it must stay; "" where it may go.
    """

    of: Labels
    locked: Mask
    reasons: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.locked)


class LabelSpace:
    """Issues labels and records ties and locks.

    Attributes:
        count: how many labels there are.
        issued: (first label, number, node index) of those issued together.
        settled: per label, whether it is locked as such (not by a tie): it need not be followed.

    Args:
        known: locks that an earlier walk over the same graph found (see `known_locks`).
    """

    def __init__(self, known: KnownLocks | None = None) -> None:
        self.count = 0
        self.settled = np.zeros(1, np.bool_)
        self._lock_of = np.zeros(1, np.int32)
        self.known = known or {}
        self._issues: Counter[int] = Counter()
        self.issued: list[tuple[int, int, int]] = []  # (first label, number, node index)
        self._edges: list[tuple[Labels, Labels]] = []
        self._locks: list[tuple[Labels, str]] = []

    def issue(self, n: int, node: int) -> Labels:
        """`n` new labels for the filters (or constant positions) that node `node` makes."""
        first = self.count + 1
        self.count += n
        self.settled = np.append(self.settled, np.zeros(n, np.bool_))
        self._lock_of = np.append(self._lock_of, np.zeros(n, np.int32))
        for reason, offsets in self.known.get((node, self._issues[node]), {}).items():
            self.lock(first + offsets, reason)
        self._issues[node] += 1
        self.issued.append((first, n, node))
        return np.arange(first, first + n, dtype=np.int64)

    def lock(self, labels: Labels | None, reason: str) -> None:
        """Labels in `labels` (zeros ignored) must stay."""
        if labels is None:
            return
        found = np.unique(labels)
        found = found[found > 0]
        if found.size:
            fresh = found[~self.settled[found]]
            self._lock_of[fresh] = len(self._locks)
            self.settled[fresh] = True
            self._locks.append((found, reason))

    def why(self, labels: Labels) -> str:
        """Why the first of some settled labels is locked."""
        return self._locks[int(self._lock_of[labels.flat[0]])][1]

    def lock_range(self, first: int, reason: str) -> None:
        """All labels from `first` on must stay."""
        self.lock(np.arange(first, self.count + 1, dtype=np.int64), reason)

    def tie(self, a: Labels, b: Labels, reason: str) -> None:
        """Position by position, `a` and `b` (broadcast) stand or fall together.

        A label that meets 0 is locked with `reason`.
        """
        a, b = np.broadcast_arrays(a, b)
        both = (a > 0) & (b > 0)
        differ = both & (a != b)
        if differ.any():
            self._edges.append(_distinct(a[differ], b[differ]))
        if not both.all():
            self.lock(a[b == 0], reason)
            self.lock(b[a == 0], reason)

    def tie_along(self, x: Labels, axes: Sequence[int], reason: str) -> Labels:
        """Tie all labels that differ only along `axes`; those axes come back with size 1."""
        for axis in axes:
            if x.shape[axis] > 1:
                first = x[(slice(None),) * axis + (slice(0, 1),)]
                self.tie(x, first, reason)
                x = first
        return x

    def classes(self) -> Classes:
        """The tied sets as they stand now."""
        n = self.count + 1
        rows = np.concatenate([e[0] for e in self._edges] or [np.empty(0, np.int64)])
        cols = np.concatenate([e[1] for e in self._edges] or [np.empty(0, np.int64)])
        number, component = components(n, rows, cols)
        # Label 0 is a component of its own, the first; shift it to -1.
        of = component - 1
        texts = ["", *(reason for _, reason in self._locks)]
        why = np.zeros(number - 1, np.int32)
        for i, (labels, _) in enumerate(self._locks, 1):
            found = of[labels]
            why[found[why[found] == 0]] = i
        return Classes(of, why > 0, tuple(map(texts.__getitem__, why)))


def _distinct(a: Labels, b: Labels) -> tuple[Labels, Labels]:
    """Each pair once: where pixels carry labels, every pixel says the same."""
    if a.size <= _FEW:
        return a, b
    parts = [
        np.unique((a[i : i + _AT_ONCE] << 32) | b[i : i + _AT_ONCE])
        for i in range(0, a.size, _AT_ONCE)
    ]
    pairs = np.unique(np.concatenate(parts))
    return pairs >> 32, pairs & 0xFFFFFFFF


def known_locks(space: LabelSpace, classes: Classes) -> KnownLocks:
    """What is locked, and why: for a second walk that need not follow it."""
    result: KnownLocks = {}
    issues: Counter[int] = Counter()
    reasons = ["", *sorted(set(classes.reasons) - {""})]
    code = {reason: i for i, reason in enumerate(reasons)}
    codes = np.fromiter(map(code.__getitem__, classes.reasons), np.int32, len(classes))
    for first, n, node in space.issued:
        found = codes[classes.of[first : first + n]]
        result[node, issues[node]] = {
            reasons[i]: np.flatnonzero(found == i) for i in np.unique(found) if i
        }
        issues[node] += 1
    return result


def line(x: Labels, axis: int) -> Labels:
    """The values along one axis of an array that changes along no other."""
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)[:, 0]


def varying_axes(x: NDArray[Any]) -> list[int]:
    """Axes of a compact array along which its values change."""
    return [axis for axis, n in enumerate(compact(x).shape) if n > 1]


def make_rectangular(space: LabelSpace, arrays: Sequence[Labels], classes: Classes) -> Classes:
    """Tie labels until whatever classes go, each array stays an array.

    An array whose classes change along several axes (channels reshaped to heads × depth, say)
    can only lose whole slices along one of them. The axis with the most classes is kept free, so
    that the granularity stays as fine as possible; along the others the labels are tied.

    Args:
        space: where to tie.
        arrays: compact label arrays.
        classes: the tied sets as they stand.
    """
    while True:
        tied = False
        movable = np.append(np.where(classes.locked, -1, np.arange(len(classes))), -1)
        by_label = movable[classes.of]  # what stays is all one
        for x in arrays:
            of = by_label[x]
            axes = varying_axes(of)
            if len(axes) < 2:
                continue
            keep = max(axes, key=lambda a: (of.shape[a], -a))
            space.tie_along(x, [a for a in axes if a != keep], "its channels do not form an axis")
            tied = True
        if not tied:
            return classes
        classes = space.classes()
