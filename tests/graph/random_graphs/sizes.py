"""Sizes that only a run decides: batch, height, width, and what is computed from them."""

from __future__ import annotations

import operator


class Size:
    """A size, by its values in a few runs; arithmetic and comparisons hold in all of them.

    The runs: the two that the tests make, the second size the pruner compares with, and the two it
    guesses when nobody tells it a size.
    """

    def __init__(self, *values):
        self.values = values

    def _with(self, other, function):
        others = other.values if isinstance(other, Size) else [other] * len(self.values)
        return [function(a, b) for a, b in zip(self.values, others, strict=True)]

    def __add__(self, other):
        return Size(*self._with(other, operator.add))

    def __sub__(self, other):
        return Size(*self._with(other, operator.sub))

    def __mul__(self, other):
        return Size(*self._with(other, operator.mul))

    def __floordiv__(self, other):
        return Size(*self._with(other, operator.floordiv))

    def __mod__(self, other):
        """A number: 0 where it divides in every run, otherwise another one."""
        return max(self._with(other, operator.mod))

    def __neg__(self):
        return Size(*(-v for v in self.values))

    __radd__, __rmul__ = __add__, __mul__

    def __eq__(self, other):
        return isinstance(other, Size) and self.values == other.values

    def __hash__(self):
        return hash(self.values)

    def __lt__(self, other):
        return all(self._with(other, operator.lt))

    def __le__(self, other):
        return all(self._with(other, operator.le))

    def __gt__(self, other):
        return all(self._with(other, operator.gt))

    def __ge__(self, other):
        return all(self._with(other, operator.ge))

    def __repr__(self):
        return f"Size{self.values}"


BATCH = Size(2, 3, 3, 2, 3)
HEIGHT = Size(8, 12, 40, 224, 256)
WIDTH = Size(12, 8, 44, 224, 256)
SYMBOLS = {"N": BATCH, "H": HEIGHT, "W": WIDTH}


def known(size):
    """Whether a size is a plain number."""
    return isinstance(size, int)


def first(size):
    """The size in the first run."""
    return size.values[0] if isinstance(size, Size) else size


def sizes_of_run(model, run=0):
    """Sizes of what has to be fed to a random model in one of the runs."""
    stored = {t.name for t in model.graph.initializer}
    return {
        i.name: tuple(
            SYMBOLS[d.dim_param].values[run] if d.dim_param else d.dim_value
            for d in i.type.tensor_type.shape.dim
        )
        for i in model.graph.input
        if i.name not in stored
    }
