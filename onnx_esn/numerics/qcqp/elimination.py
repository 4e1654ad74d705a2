"""The largest value of a sum of tables, by eliminating one variable after another.

Exact where the tables that arise stay small. Where one would not, the functions of a variable are
maximised in several parts, each for itself ("mini-buckets"): the value is then an upper bound.

Source: Dechter, Rish (2003), "Mini-buckets: a general scheme for bounded inference".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.qcqp.instance import Floats, Integers
from onnx_esn.numerics.qcqp.kinds import Pair

MOST_ENTRIES = 1 << 21
Scope = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """Eliminates a variable from functions with these scopes, in parts."""

    variable: int
    parts: tuple[tuple[int, ...], ...]  # numbers of functions; what comes out is appended
    scopes: tuple[Scope, ...]  # of what comes out of each part


@dataclass(frozen=True)
class Order:
    """How to eliminate all variables; functions 0..K−1 are unary, then come the pairs."""

    pairs: tuple[Pair, ...]
    steps: tuple[Step, ...]
    exact: bool


def plan_elimination(
    sizes: Sequence[int], pairs: Sequence[Pair], most: int = MOST_ENTRIES
) -> Order:
    """Choose the order: the variable whose table is smallest goes next.

    Args:
        sizes: values of each variable.
        pairs: variables that share a table.
        most: entries of the largest table.
    """
    scopes: list[Scope] = [(a,) for a in range(len(sizes))] + [tuple(p) for p in pairs]
    alive = set(range(len(scopes)))
    left = set(range(len(sizes)))
    steps, exact = [], True
    while left:
        v = min(left, key=lambda v: (_entries(v, alive, scopes, sizes), v))
        mine = sorted((f for f in alive if v in scopes[f]), key=lambda f: (-len(scopes[f]), f))
        parts: list[tuple[set[int], list[int]]] = []
        for f in mine:
            for together, numbers in parts:
                joined = together | set(scopes[f])
                if np.prod([float(sizes[u]) for u in joined]) <= most or joined == together:
                    together |= set(scopes[f])
                    numbers.append(f)
                    break
            else:
                parts.append((set(scopes[f]), [f]))
        exact &= len(parts) == 1
        out = tuple(tuple(sorted(t - {v})) for t, _ in parts)
        steps.append(Step(v, tuple(tuple(n) for _, n in parts), out))
        alive -= set(mine)
        for scope in out:
            alive.add(len(scopes))
            scopes.append(scope)
        left.remove(v)
    return Order(tuple(pairs), tuple(steps), exact)


def _entries(v: int, alive: set[int], scopes: Sequence[Scope], sizes: Sequence[int]) -> float:
    """Entries of the table that eliminating a variable would make."""
    together = {u for f in alive if v in scopes[f] for u in scopes[f]}
    return float(np.prod([float(sizes[u]) for u in together]))


def maximise(
    order: Order, unary: Sequence[Floats], pairs: Mapping[Pair, Floats]
) -> tuple[float, Integers]:
    """Return an upper bound on the largest sum, and values (K,) that attain it where it is exact.

    Args:
        order: of `plan_elimination`.
        unary: a table per variable.
        pairs: a table per pair of the order.
    """
    found: list[tuple[Scope, Floats]] = [((a,), u) for a, u in enumerate(unary)]
    found += [(tuple(p), pairs[p]) for p in order.pairs]
    total = 0.0
    for step in order.steps:
        for part, scope in zip(step.parts, step.scopes, strict=True):
            axes = (*scope, step.variable)
            table = np.zeros((1,) * len(axes))
            for f in part:
                table = table + _spread(*found[f], axes)
            best = table.max(axis=-1)
            found.append((scope, best))
            if not scope:
                total += float(best)
    values = np.zeros(len(unary), np.int64)
    for step in reversed(order.steps):
        line = np.zeros(len(unary[step.variable]))
        for part in step.parts:
            for f in part:
                scope, table = found[f]
                at = tuple(slice(None) if u == step.variable else values[u] for u in scope)
                line = line + table[at]
        values[step.variable] = int(line.argmax())
    return total, values


def _spread(scope: Scope, table: Floats, axes: Scope) -> Floats:
    """Lay a table out along the axes."""
    by_axis = sorted(range(len(scope)), key=lambda i: axes.index(scope[i]))
    turned = table.transpose(by_axis)
    shape = [1] * len(axes)
    for i in by_axis:
        shape[axes.index(scope[i])] = table.shape[i]
    return np.asarray(turned.reshape(shape))
