"""Small programs, and their best choice by trying all of them one by one."""

from __future__ import annotations

import itertools

import numpy as np

from onnx_esn.numerics.qcqp.instance import Budget, Count, Instance, Term, Width, block


def count(classes, fixed=0.0):
    return Count(float(fixed), np.asarray(classes), np.ones(len(classes)))


def random_instance(seed, most=14):
    """Up to four groups of classes, blocks between them (or within one, or onto two joined)."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, int(rng.integers(1, 5)))
    if sizes.sum() > most:
        sizes = np.minimum(sizes, 3)
    ends = np.append(0, np.cumsum(sizes))
    groups = [np.arange(a, b) for a, b in itertools.pairwise(ends)]
    n = int(ends[-1])
    linear, blocks, terms = rng.random(n) * rng.integers(0, 2), [], []
    widths = [Width(count(g), float(rng.integers(1, 3)), int(rng.integers(1, 3))) for g in groups]
    for _ in range(int(rng.integers(1, 6))):
        rows, cols = (groups[i] for i in rng.integers(0, len(groups), 2))
        if rng.random() < 0.3:
            cols = np.union1d(cols, groups[rng.integers(0, len(groups))])
            if rng.random() < 0.5:
                widths.append(Width(count(cols), 2.0, int(rng.integers(1, 3))))
        worth = rng.random((rows.size, cols.size)) ** rng.choice([0.3, 1, 4])
        worth = worth * rng.random((rows.size, 1)) * (rng.random(worth.shape) < 0.9)
        found, both, own = block(rows, cols, worth)
        linear[both] += own
        blocks.append(found)
        fixed = rng.integers(0, 2, 2)
        factor = float(rng.integers(1, 9))
        terms.append(Term(factor, count(rows, fixed[0]), count(cols, fixed[1])))
    budgets = [Budget("a", share(terms, n, rng.uniform(0.2, 0.95)), terms)]
    if rng.random() < 0.5:
        terms = [Term(float(rng.integers(1, 5)), count(g)) for g in groups]
        budgets.append(Budget("b", share(terms, n, rng.uniform(0.2, 0.95)), terms))
    return Instance(linear, blocks, budgets, widths, 1.0)


def share(terms, n, of):
    return of * Budget("", 0.0, terms).cost(np.ones(n, bool))


def residual(depth=3, width=4, of=0.5, seed=0):
    """A stream that blocks of an inner width read and write, as in a ResNet."""
    rng = np.random.default_rng(seed)
    n = width * (depth + 1)
    stream = np.arange(width)
    linear, blocks, terms = np.zeros(n), [], []
    linear[stream] = rng.random(width)
    widths = [Width(count(stream))]
    for i in range(depth):
        inner = width * (i + 1) + np.arange(width)
        widths.append(Width(count(inner)))
        for rows, cols in ((inner, stream), (stream, inner)):
            worth = rng.gamma(0.5, size=(width, width))
            blocks.append(block(rows, cols, worth / np.linalg.norm(worth))[0])
            terms.append(Term(1.0, count(rows), count(cols)))
    return Instance(linear, blocks, [Budget("MACs", share(terms, n, of), terms)], widths)


def value_of(instance, x):
    """What a choice is worth, term by term."""
    total = instance.constant + sum(q for q, kept in zip(instance.linear, x, strict=True) if kept)
    for b in instance.blocks:
        for i, j in itertools.product(range(b.rows.size), range(b.cols.size)):
            total += b.worth[i, j] * x[b.rows[i]] * x[b.cols[j]]
    return total


def is_feasible(instance, x):
    """Whether it is within budgets and widths, term by term."""

    def left(c):
        kept = zip(c.classes, c.weights, strict=True)
        return c.fixed + sum(w for at, w in kept if x[at])

    for b in instance.budgets:
        cost = b.fixed + sum(t.factor * left(t.left) * left(t.right) for t in b.terms)
        if cost > b.limit * (1 + 1e-9):
            return False
    for w in instance.widths:
        whole = w.count.fixed + w.count.weights.sum()
        if left(w.count) != whole and (left(w.count) < w.least or left(w.count) % w.step):
            return False
    return True


def brute_force(instance):
    """The largest worth of a feasible choice, or None."""
    choices = itertools.product((False, True), repeat=instance.size)
    values = [value_of(instance, x) for x in choices if is_feasible(instance, x)]
    return max(values, default=None)
