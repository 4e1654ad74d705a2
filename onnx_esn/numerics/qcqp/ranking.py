"""Which classes stay, given how many of each kind: the best of each kind given all others, in turn.

Where a kind's classes are worth nothing together, its best are those that add most: exact. Where
they are, the same ranking is tried and kept if it gains. Neither can see that two kinds should
change at once, so classes are exchanged at random (seeded) and the search goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnx_esn.numerics.qcqp.greedy import fill, reduce
from onnx_esn.numerics.qcqp.instance import Floats, Instance, Integers, Mask
from onnx_esn.numerics.qcqp.kinds import Kinds

_ROUNDS = 50


def rerank(instance: Instance, kinds: Kinds, x: Mask) -> Mask:
    """Return the choice (n,) with the counts of x that no such change betters."""
    x = x.copy()
    gains = instance.gains(x)
    for _ in range(_ROUNDS):
        changed = False
        for members in kinds.members:
            changed |= _rerank_kind(instance, members, x, gains)
        if not changed:
            break
    return x


def _rerank_kind(instance: Instance, members: Integers, x: Mask, gains: Floats) -> bool:
    """Exchange the worst of a kind that stay for the best that went while it gains."""
    changed = False
    for _ in range(members.size):
        kept, gone = members[x[members]], members[~x[members]]
        if not kept.size or not gone.size:
            break
        out, in_ = int(kept[gains[kept].argmin()]), int(gone[gains[gone].argmax()])
        if gains[in_] - gains[out] <= 1e-12 * abs(gains[in_]):
            break
        if gains[in_] - gains[out] - instance.together(out)[in_] <= 1e-12 * abs(gains[in_]):
            break
        x[out], x[in_] = False, True
        instance.shift_gains(gains, out, -1.0)
        instance.shift_gains(gains, in_, 1.0)
        changed = True
    return changed


def shaken(
    instance: Instance,
    kinds: Kinds,
    x: Mask,
    rounds: int,
    seed: int,
    out_of_time: Callable[[], bool],
) -> Mask:
    """Return the best feasible choice that random changes lead to.

    By turns, classes of a few kinds are exchanged, and classes come or go whatever they cost;
    then what is too much goes, the ranking is done again, and what fits comes back.
    """
    rng = np.random.default_rng(seed)
    value = instance.objective(x)
    for turn in range(rounds):
        if out_of_time():
            break
        flip = _exchange if turn % 2 else _flip
        trial = x.copy()
        flip(kinds, trial, rng)
        moved = trial != x
        reduced = reduce(instance, kinds, start=trial, held=moved & trial)
        if reduced is None:
            continue
        trial = rerank(instance, kinds, fill(instance, kinds, reduced, moved & x))
        trial = fill(instance, kinds, trial)
        if (found := instance.objective(trial)) > value * (1 + 1e-12) and instance.feasible(trial):
            x, value = trial, found
    return x


def _exchange(kinds: Kinds, x: Mask, rng: np.random.Generator) -> None:
    """Exchange classes of one to three kinds, in place."""
    mixed = [m for m in kinds.members if 0 < x[m].sum() < m.size]
    few = min(len(mixed), int(rng.integers(1, 4)))
    for i in rng.choice(len(mixed), few, replace=False) if mixed else ():
        members = mixed[int(i)]
        kept, gone = members[x[members]], members[~x[members]]
        most = min(kept.size, gone.size)
        n = min(most, int(rng.integers(1, max(2, most // 2 + 1))))
        x[rng.choice(kept, n, replace=False)] = False
        x[rng.choice(gone, n, replace=False)] = True


def _flip(kinds: Kinds, x: Mask, rng: np.random.Generator) -> None:
    """Let classes of one kind come or go, in place."""
    members = kinds.members[int(rng.integers(len(kinds)))]
    n = int(rng.integers(1, max(2, members.size // 4 + 1)))
    x[rng.choice(members, n, replace=False)] ^= True


def order_of(instance: Instance, kinds: Kinds, x: Mask) -> list[Integers]:
    """Places within each kind in the order in which they should stay: those of x first."""
    gains = instance.gains(x)
    return [
        np.lexsort((np.arange(m.size), -gains[m], ~x[m])).astype(np.int64) for m in kinds.members
    ]
