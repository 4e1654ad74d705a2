"""Kinds: classes that every budget and every width counts alike.

Costs depend on how many classes of each kind stay, not on which. With k (K,) those numbers,

    cost_r(k) = const_r + Σ_a unary_ra(k_a) + Σ_{a<b} pair_rab · k_a · k_b.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.qcqp.instance import Budget, Count, Floats, Instance, Integers, Mask

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class CountCost:
    """A budget over counts: const, unary[a] (n_a + 1,) per kind, and a factor per pair a < b."""

    limit: float
    const: float
    unary: list[Floats]
    pairs: dict[Pair, float]

    def of(self, k: Integers) -> float:
        """The cost of counts k (K,)."""
        single = sum(float(u[n]) for u, n in zip(self.unary, k, strict=True))
        both = sum(f * float(k[a] * k[b]) for (a, b), f in self.pairs.items())
        return self.const + single + both


@dataclass(frozen=True, eq=False)
class CountWidth:
    """A width over counts: fixed + Σ weights·k[kinds]."""

    fixed: float
    kinds: Integers
    weights: Floats
    least: float
    step: int
    whole: float


@dataclass(frozen=True, eq=False)
class Kinds:
    """The kinds of an instance.

    Attributes:
        of: kind (n,) of each class.
        members: classes of each kind, ascending.
        costs: the budgets.
        widths: the widths that counts of a single kind do not settle.
        allowed: per kind, which counts (n_a + 1,) its own widths allow.
    """

    of: Integers
    members: list[Integers]
    costs: list[CountCost]
    widths: list[CountWidth]
    allowed: list[Mask]

    def __len__(self) -> int:
        return len(self.members)

    @property
    def sizes(self) -> list[int]:
        """Classes per kind."""
        return [m.size for m in self.members]

    def counts(self, x: Mask) -> Integers:
        """How many of each kind stay (K,) in a choice x (n,)."""
        return np.bincount(self.of, x, len(self.members)).astype(np.int64)

    def fits(self, k: Integers) -> bool:
        """Whether counts are allowed by all widths."""
        own = all(a[n] for a, n in zip(self.allowed, k, strict=True))
        return own and all(_allows(w, w.fixed + float(w.weights @ k[w.kinds])) for w in self.widths)


def find_kinds(instance: Instance) -> Kinds:
    """Sort the classes by how the budgets and widths count them."""
    counts = [c for b in instance.budgets for t in b.terms for c in (t.left, t.right)]
    counts += [w.count for w in instance.widths]
    signs: list[list[tuple[int, float]]] = [[] for _ in range(instance.size)]
    seen: dict[tuple[bytes, bytes], int] = {}
    for count in counts:
        key = count.classes.tobytes(), count.weights.tobytes()
        if key not in seen:
            seen[key] = len(seen)
            for c, w in zip(count.classes.tolist(), count.weights.tolist(), strict=True):
                signs[c].append((seen[key], w))
    number: dict[tuple[tuple[int, float], ...], int] = {}
    of = np.array([number.setdefault(tuple(s), len(number)) for s in signs], dtype=np.int64)
    order = np.argsort(of, kind="stable")
    ends = np.cumsum(np.bincount(of, minlength=len(number)))
    members = np.split(order, ends[:-1]) if number else []
    costs = [_cost(b, of, members) for b in instance.budgets]
    widths, allowed = [], [np.ones(m.size + 1, np.bool_) for m in members]
    for w in instance.widths:
        kinds, weights = _weights(w.count, of)
        found = CountWidth(w.count.fixed, kinds, weights, w.least, w.step, w.whole)
        if kinds.size != 1:
            widths.append(found)
            continue
        a = int(kinds[0])
        left = w.count.fixed + weights[0] * np.arange(members[a].size + 1)
        allowed[a] &= np.array([_allows(found, float(n)) for n in left])
    return Kinds(of, members, costs, widths, allowed)


def _allows(w: CountWidth, left: float) -> bool:
    return left == w.whole or (left >= w.least and left % w.step == 0)


def _weights(count: Count, of: Integers) -> tuple[Integers, Floats]:
    """The kinds that a count counts, and the weight of one class of each."""
    kinds, first = np.unique(of[count.classes], return_index=True)
    return kinds, count.weights[first]


def _cost(budget: Budget, of: Integers, members: Sequence[Integers]) -> CountCost:
    const, pairs = budget.fixed, defaultdict[Pair, float](float)
    unary = [np.zeros(m.size + 1) for m in members]
    for term in budget.terms:
        (ka, wa), (kb, wb) = _weights(term.left, of), _weights(term.right, of)
        const += term.factor * term.left.fixed * term.right.fixed
        for a, w in zip(ka.tolist(), wa.tolist(), strict=True):
            unary[a] += term.factor * w * term.right.fixed * np.arange(unary[a].size)
        for b, w in zip(kb.tolist(), wb.tolist(), strict=True):
            unary[b] += term.factor * w * term.left.fixed * np.arange(unary[b].size)
        for a, w in zip(ka.tolist(), wa.tolist(), strict=True):
            for b, v in zip(kb.tolist(), wb.tolist(), strict=True):
                if a == b:
                    unary[a] += term.factor * w * v * np.arange(unary[a].size) ** 2.0
                else:
                    pairs[min(a, b), max(a, b)] += term.factor * w * v
    kept = {pair: f for pair, f in pairs.items() if f != 0}
    return CountCost(budget.limit, const, unary, kept)
