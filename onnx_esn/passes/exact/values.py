"""Numbers for what the channels of a model hold: equal numbers, equal values.

Each number stands for a function of the input ("this filter on that tensor, then Relu"), found
by what it is computed from. So two channels with one number always hold the same values, whatever
the input is. With each number goes the range of its values; a constant has a range of one point.
"""

from __future__ import annotations

from collections.abc import Hashable
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


class Values:
    """Gives out the numbers, one for each distinct key."""

    def __init__(self) -> None:
        self.count = 0
        self._known: dict[Hashable, int] = {}
        self._low: Floats = np.full(1024, -np.inf)
        self._high: Floats = np.full(1024, np.inf)

    def fresh(self, n: int) -> Ids:
        """`n` numbers that equal no other: nothing is known of these values."""
        first = self.count
        self.count += n
        if self.count > self._low.size:
            more = np.full(max(self._low.size, n), np.inf)
            self._low = np.concatenate([self._low, -more])
            self._high = np.concatenate([self._high, more])
        return np.arange(first, first + n, dtype=np.int64)

    def of(self, key: Hashable) -> int:
        """The number of what `key` describes."""
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = int(self.fresh(1)[0])
        return found

    def constant(self, value: float) -> int:
        """The number of a constant; what is not finite counts as any other value."""
        value = float(value) + 0.0  # −0 is 0
        number = self.of(("constant", value if value == value else "nan"))
        if np.isfinite(value):
            self._low[number] = self._high[number] = value
        return number

    def constants(self, ids: Ids) -> Floats:
        """The values behind numbers; NaN where they are not constant."""
        low = self._low[ids]
        return np.where(low == self._high[ids], low, np.nan)

    def ranges(self, ids: Ids) -> tuple[Floats, Floats]:
        """The least and the largest value behind numbers; infinite where unknown."""
        return self._low[ids], self._high[ids]

    def within(self, ids: Ids, low: Floats, high: Floats) -> Ids:
        """Note the ranges of numbers; those of constants where a range is but one point.

        A point is what rounding leaves of it: less than half a unit in the last place of float32.
        """
        ids, low, high = np.broadcast_arrays(ids, low, high)
        known = ~(np.isnan(low) | np.isnan(high)) & (low <= high)
        known &= np.isnan(self.constants(ids))
        self._low[ids[known]] = np.maximum(self._low[ids[known]], low[known])
        self._high[ids[known]] = np.minimum(self._high[ids[known]], high[known])
        low, high = self.ranges(ids)
        with np.errstate(invalid="ignore"):
            point = np.isfinite(low) & np.isfinite(high)
            point &= high - low <= 2.0**-24 * np.minimum(np.abs(low), np.abs(high))
        if not point.any():
            return ids
        ids = ids.copy()
        middle = (low[point] + high[point]) / 2
        ids[point] = [self.constant(v) for v in middle.tolist()]
        return ids


def digest(x: NDArray[Any]) -> bytes:
    """What tells the contents of one array from another's, shape and type included."""
    head = f"{x.dtype.str if x.dtype.kind in 'fiub' else x.dtype}{x.shape}".encode()
    return blake2b(np.ascontiguousarray(x).tobytes(), digest_size=16, key=head[:64]).digest()
