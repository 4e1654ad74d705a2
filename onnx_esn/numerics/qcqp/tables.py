"""Tables over counts: what is kept is worth with so many classes of each kind.

A `Tables` is a sum Σ_a unary[a][k_a] + Σ_{a<b} pairs[a, b][k_a, k_b]. Two of them matter: the
worth of the best classes in a given order (`ranked`), which some choice attains, and a bound that
no choice exceeds (`bounding`).

The bound splits the matrix E between two kinds into row means, column means and the rest N. With k
and m classes kept, x and y, and centred x̃ = x − k/n, ỹ likewise,

    xᵀEy = m·r̄ᵀx + k·c̄ᵀy − μ·k·m + x̃ᵀNỹ,    x̃ᵀNỹ summed over all pairs ≤ Σ_a d_a·k_a(1 − k_a/n_a)

where diag(d) − N ⪰ 0 (see `spectral`); the means are bounded by their largest k (or m) entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.qcqp.instance import Floats, Instance, Integers
from onnx_esn.numerics.qcqp.kinds import Kinds, Pair


@dataclass(frozen=True, eq=False)
class Tables:
    """A function of counts: const + Σ unary[a][k_a] + Σ pairs[a, b][k_a, k_b], a < b."""

    const: float
    unary: list[Floats]
    pairs: dict[Pair, Floats]

    def of(self, k: Integers) -> float:
        """The value at counts k (K,)."""
        single = sum(float(u[n]) for u, n in zip(self.unary, k, strict=True))
        return self.const + single + sum(float(t[k[a], k[b]]) for (a, b), t in self.pairs.items())


@dataclass(frozen=True, eq=False)
class Edges:
    """What the classes of two kinds are worth together: one matrix per pair a ≤ b of kinds."""

    linear: list[Floats]
    between: dict[Pair, Floats]
    constant: float


def find_edges(instance: Instance, kinds: Kinds) -> Edges:
    """Sum all blocks up by pairs of kinds; within a kind, the matrix is symmetric, half each."""
    place = np.zeros(instance.size, np.int64)
    for m in kinds.members:
        place[m] = np.arange(m.size)
    between: dict[Pair, Floats] = {}
    for b in instance.blocks:
        for a, rows in _by_kind(b.rows, kinds):
            for c, cols in _by_kind(b.cols, kinds):
                part = b.worth[np.ix_(rows, cols)]
                i, j = place[b.rows[rows]], place[b.cols[cols]]
                if a > c:
                    part, i, j = part.T, j, i
                key = min(a, c), max(a, c)
                if key not in between:
                    between[key] = np.zeros(
                        (kinds.members[key[0]].size, kinds.members[key[1]].size)
                    )
                between[key][np.ix_(i, j)] += part
    for a, c in between:
        if a == c:
            between[a, c] = (between[a, c] + between[a, c].T) / 2
    linear = [instance.linear[m] for m in kinds.members]
    return Edges(linear, between, instance.constant)


def _by_kind(classes: Integers, kinds: Kinds) -> list[tuple[int, Integers]]:
    of = kinds.of[classes]
    return [(int(a), np.flatnonzero(of == a)) for a in np.unique(of)]


def ranked(edges: Edges, order: Sequence[Integers]) -> Tables:
    """The worth of the first k_a classes of each kind; order[a] holds places within the kind."""
    unary = [np.append(0.0, np.cumsum(q[o])) for q, o in zip(edges.linear, order, strict=True)]
    pairs = {}
    for (a, b), E in edges.between.items():
        total = np.zeros((E.shape[0] + 1, E.shape[1] + 1))
        total[1:, 1:] = E[np.ix_(order[a], order[b])].cumsum(axis=0).cumsum(axis=1)
        if a == b:
            unary[a] = unary[a] + np.diag(total)
        else:
            pairs[a, b] = total
    return Tables(edges.constant, unary, pairs)


def linked(tables: Tables, kinds: Kinds) -> list[Pair]:
    """The pairs of kinds that the tables or a cost speak of."""
    return sorted({*tables.pairs, *(pair for c in kinds.costs for pair in c.pairs)})


def largest(values: Floats) -> Floats:
    """The sums (n + 1,) of the 0..n largest values."""
    return np.append(0.0, np.cumsum(np.sort(values)[::-1]))


def split(E: Floats) -> tuple[Floats, Floats, float, Floats]:
    """Row means, column means, mean, and what is left of a matrix, whose means are all 0."""
    rows, cols, mean = E.mean(axis=1), E.mean(axis=0), float(E.mean())
    return rows, cols, mean, E - rows[:, None] - cols + mean


def bounding(edges: Edges, weights: Floats) -> Tables:
    """What so many classes are worth at most.

    Args:
        edges: the worths.
        weights: d (K,) of `spectral`.
    """
    unary, pairs = [], {}
    for (a, b), E in edges.between.items():
        if a != b:
            rows, cols, mean, _ = split(E)
            n, m = np.arange(E.shape[0] + 1.0), np.arange(E.shape[1] + 1.0)
            pairs[a, b] = np.outer(largest(rows), m) + np.outer(n, largest(cols) - mean * m)
    for a, q in enumerate(edges.linear):
        k = np.arange(q.size + 1.0)
        curve = largest(q)
        if (a, a) in edges.between:
            rows, _, mean, _ = split(edges.between[a, a])
            curve = curve + 2 * k * largest(rows) - mean * k**2
        unary.append(curve + weights[a] * k * (1 - k / max(q.size, 1)))
    return Tables(edges.constant, unary, pairs)


def entrywise(edges: Edges) -> Tables:
    """The same by another bound: each row keeps its own best entries, or each column."""
    unary = [largest(q) for q in edges.linear]
    pairs = {}
    for (a, b), E in edges.between.items():
        table = np.minimum(_best_rows(E), _best_rows(E.T).T)
        if a == b:
            unary[a] = unary[a] + np.diag(table)
        else:
            pairs[a, b] = table
    return Tables(edges.constant, unary, pairs)


def _best_rows(E: Floats) -> Floats:
    """Σ of the k best rows' m best entries each, (n + 1, m + 1)."""
    inside = np.cumsum(np.sort(E, axis=1)[:, ::-1], axis=1)
    table = np.zeros((E.shape[0] + 1, E.shape[1] + 1))
    table[1:, 1:] = np.cumsum(np.sort(inside, axis=0)[::-1], axis=0)
    return table
