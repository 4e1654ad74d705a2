"""The quadratic program: which classes of channels stay, by what they are worth together.

    maximise    Σ_l u_lᵀ I_l v_{l−1}  =  const + q·x + Σ_blocks x_rowsᵀ I x_cols
    subject to  Σ_terms c · (a₁ + w₁·x) · (a₂ + w₂·x)  ≤  limit        for each budget
                fixed + w·x  ≥  least, and a multiple of step or whole  for each width

over x ∈ {0, 1}ⁿ, one number per class that may go. What stays for sure is in the constants.

Source: Jeong, Kim, Song (2022), "Optimal channel selection with discrete QCQP".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Of a budget: sums in another order differ by as much.
SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class Block:
    """Worth (R, C) ≥ 0 of what class rows[i] makes from class cols[j]; each class once an axis."""

    rows: Integers
    cols: Integers
    worth: Floats


@dataclass(frozen=True, eq=False)
class Count:
    """A number of channels that are left: fixed + Σ weights·x[classes], each class once."""

    fixed: float
    classes: Integers
    weights: Floats

    def of(self, x: Mask) -> float:
        """The number for a choice x (n,)."""
        return self.fixed + float(self.weights @ x[self.classes])


ONE = Count(1.0, np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True, eq=False)
class Term:
    """factor · left · right of a budget."""

    factor: float
    left: Count
    right: Count = ONE


@dataclass(frozen=True, eq=False)
class Budget:
    """What the classes that stay cost, fixed + Σ terms, and the limit."""

    name: str
    limit: float
    terms: Sequence[Term]
    fixed: float = 0.0

    def cost(self, x: Mask) -> float:
        """The cost of a choice x (n,)."""
        return self.fixed + sum(t.factor * t.left.of(x) * t.right.of(x) for t in self.terms)

    def met(self, x: Mask) -> bool:
        """Whether a choice x (n,) stays below the limit."""
        return self.cost(x) <= self.limit + SLACK * abs(self.limit)


@dataclass(frozen=True, eq=False)
class Width:
    """How many channels of a layer must stay: at least `least`, and a multiple of `step` or all."""

    count: Count
    least: float = 1.0
    step: int = 1

    @cached_property
    def whole(self) -> float:
        """The number with nothing removed."""
        return self.count.fixed + float(self.count.weights.sum())

    def allows(self, left: float) -> bool:
        """Whether so many channels may be left."""
        return left == self.whole or (left >= self.least and left % self.step == 0)


@dataclass(frozen=True, eq=False)
class Instance:
    """The program.

    Attributes:
        linear: q (n,), what each class is worth by itself, ≥ 0.
        blocks: what pairs of classes are worth; a class with itself belongs into `linear`.
        budgets: the budgets.
        widths: what must stay.
        constant: what is there whatever stays.
    """

    linear: Floats
    blocks: Sequence[Block]
    budgets: Sequence[Budget]
    widths: Sequence[Width] = field(default=())
    constant: float = 0.0

    @property
    def size(self) -> int:
        """Number n of classes."""
        return self.linear.size

    def objective(self, x: Mask) -> float:
        """What a choice x (n,) is worth."""
        kept = np.asarray(x, np.float64)
        pairs = sum(float(kept[b.rows] @ b.worth @ kept[b.cols]) for b in self.blocks)
        return self.constant + float(self.linear @ kept) + pairs

    def gains(self, x: Mask) -> Floats:
        """What each class adds (n,) to the others of a choice x (n,)."""
        kept, total = np.asarray(x, np.float64), self.linear.copy()
        for b in self.blocks:
            total[b.rows] += b.worth @ kept[b.cols]
            total[b.cols] += kept[b.rows] @ b.worth
        return np.asarray(total)

    @cached_property
    def _places(self) -> list[list[tuple[Block, int, bool]]]:
        """By class: the blocks that hold it, where, and whether as a row."""
        found: list[list[tuple[Block, int, bool]]] = [[] for _ in range(self.size)]
        for b in self.blocks:
            for i, c in enumerate(b.rows.tolist()):
                found[c].append((b, i, True))
            for i, c in enumerate(b.cols.tolist()):
                found[c].append((b, i, False))
        return found

    @cached_property
    def widths_of(self) -> list[list[tuple[int, float]]]:
        """By class: the widths that count it, and how often."""
        found: list[list[tuple[int, float]]] = [[] for _ in range(self.size)]
        for i, w in enumerate(self.widths):
            for c, n in zip(w.count.classes.tolist(), w.count.weights.tolist(), strict=True):
                found[c].append((i, n))
        return found

    def shift_gains(self, gains: Floats, c: int, sign: float) -> None:
        """Change what `gains` gave, in place: class c comes (+1) or goes (−1)."""
        for b, i, is_row in self._places[c]:
            if is_row:
                gains[b.cols] += sign * b.worth[i]
            else:
                gains[b.rows] += sign * b.worth[:, i]

    def together(self, c: int) -> Floats:
        """What class c is worth together with each class (n,)."""
        row = np.zeros(self.size)
        self.shift_gains(row, c, 1.0)
        return row

    def met(self, x: Mask) -> bool:
        """Whether a choice x (n,) is within all budgets."""
        return all(b.met(x) for b in self.budgets)

    def allowed(self, x: Mask) -> bool:
        """Whether a choice x (n,) leaves every width as it must be."""
        return all(w.allows(w.count.of(x)) for w in self.widths)

    def feasible(self, x: Mask) -> bool:
        """Both."""
        return self.met(x) and self.allowed(x)


def block(rows: Integers, cols: Integers, worth: Floats) -> tuple[Block, Integers, Floats]:
    """A block without the worth of a class with itself: that comes back by class."""
    both, i, j = np.intersect1d(rows, cols, return_indices=True)
    own = worth[i, j].copy()
    worth = worth.copy()
    worth[i, j] = 0.0
    return Block(rows, cols, worth), both, own


def worthless(instance: Instance, classes: Mask) -> Instance:
    """The same program, but that some classes (n,) are worth nothing."""
    if not classes.any():
        return instance
    live = ~classes
    blocks = [
        replace(b, worth=b.worth * live[b.rows][:, None] * live[b.cols]) for b in instance.blocks
    ]
    return replace(instance, linear=instance.linear * live, blocks=blocks)
