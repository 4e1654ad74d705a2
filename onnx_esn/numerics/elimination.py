"""Which channel to drop next, when those that read it are refitted by least squares.

A consumer y = W x reads the features x of the channels: one each of a pointwise layer, k² taps of
a convolution. Without the features of a set S of channels, the best weights on the others lose

    min over W' with W'_S = 0 of  tr((W − W') H (W − W')ᵀ) = tr(W_S ([H⁻¹]_SS)⁻¹ W_Sᵀ)

and S grows greedily: next goes the channel that adds least, over all the consumers that read it.
That is OSSCAR's criterion; ThiNet's too, with the refit inside the choice. A layer's loss of the
first k channels of the order is what its width costs.

H is regularized by ridge·diag(H): with 1 % (the default) weights stay nearer to the old ones
where the images say little, and a channel whose twin stays costs about 2 % of what it would alone.

Source: Meng et al. (2024), "OSSCAR: one-shot structured pruning"; Luo, Wu and Lin (2017), "ThiNet:
a filter level pruning method"; Minoux (1978), "Accelerated greedy algorithms".
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.downdate import LEAST_RIDGE, Downdate
from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.midrise import Floats, finite


@dataclass(frozen=True, eq=False)
class Consumer:
    """One layer that reads the channels.

    H: second moments E[x xᵀ] (d, d) of its input features; symmetric, positive semidefinite, of
        any rank; not centred, so add a feature that is always 1 (owner −1) for the bias.
    W: weights (M, d) that read them, scaled so that squared errors of all M outputs count alike.
    owner: class (d,) that each feature belongs to; −1, or a class that may not go: it stays.
    weight: what its loss is multiplied by.
    """

    H: Floats
    W: Floats
    owner: Integers
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Elimination:
    """The classes in the order in which they go, and the loss after each: (n,) and (n + 1,).

    loss[0] is 0 and no loss is below the one before; the unit is that of weight·W H Wᵀ.
    """

    order: Integers
    loss: Floats


def eliminate(
    consumers: Sequence[Consumer],
    classes: npt.ArrayLike,
    *,
    ridge: float = 1e-2,
    keep: int = 1,
    batch: int = 64,
    costs: npt.ArrayLike | None = None,
) -> Elimination:
    """Return the order in which classes go, until only `keep` of them are left.

    classes is (K,): the ids that may go. A class may own any number of features in any number of
    consumers; one that owns none goes first, at no loss. Of equals, the first in classes goes.

    costs (K,), positive: what the removal of a class is worth; the least loss per cost goes first.

    batch: all classes are compared again after every max(1, left // batch) removals. In between,
    a class still goes only if its own loss, which is computed anew, is the least known (others
    count as they were; losses mostly grow while channels go, so the order is rarely another). At
    least K makes it exactly greedy. The losses are exact for the order in either case.

    Time for one consumer is O(d³ + d·M·(d + 64·log K)) or less; memory is O(d·(d + M)) each.

    Raises:
        VerificationError: moments or weights are not finite, or moments not positive semidefinite.
    """
    ids = np.asarray(classes, dtype=np.int64)
    worth = np.ones(ids.size) if costs is None else np.asarray(costs, dtype=np.float64)
    if ids.ndim != 1 or np.unique(ids).size != ids.size or (ids < 0).any():
        raise ValueError("classes must be distinct ids of at least 0")
    if worth.shape != ids.shape or not (worth > 0).all():
        raise ValueError(f"costs must be positive, one for each of the {ids.size} classes")
    if keep < 0 or batch < 1 or not ridge >= 0:
        raise ValueError("keep and ridge must not be negative, and batch must be at least 1")
    states, readers = _states(consumers, ids, ridge)
    gone: list[int] = []
    added: list[float] = []
    left = np.ones(ids.size, dtype=np.bool_)
    while ids.size - len(gone) > keep:
        loss = np.sum([state.costs() for state in states], axis=0) if states else np.zeros(ids.size)
        start = len(gone)
        until = start + min(max(1, (ids.size - start) // batch), ids.size - start - keep)
        # A class with the number of removals at which its loss was computed.
        queue = [(float(loss[c] / worth[c]), int(c), start) for c in np.flatnonzero(left)]
        heapq.heapify(queue)
        while len(gone) < until:
            _, c, known = heapq.heappop(queue)
            if known < len(gone):
                rate = sum(state.cost(c) for state in readers[c]) / float(worth[c])
                heapq.heappush(queue, (rate, c, len(gone)))
                continue
            added.append(sum(state.remove(c) for state in readers[c]))
            gone.append(c)
            left[c] = False
    return Elimination(ids[np.asarray(gone, dtype=np.int64)], np.cumsum([0.0, *added]))


def improve(
    consumers: Sequence[Consumer],
    classes: npt.ArrayLike,
    gone: npt.ArrayLike,
    *,
    ridge: float = 1e-2,
    rounds: int = 3,
) -> tuple[Integers, float]:
    """Return a set of classes to drop that is as large as gone, and its loss, by local search.

    Each class gone is exchanged for the one left that lowers the loss most, until none does or
    for so many rounds. This is for the last word on small groups: one round costs as much as
    len(gone) eliminations, and sets found so are not nested.

    Raises:
        VerificationError: as `eliminate`.
    """
    ids = np.asarray(classes, dtype=np.int64)
    out = [int(c) for c in _positions(np.asarray(gone, dtype=np.int64), ids)]
    if min(out, default=0) < 0:
        raise ValueError("what is gone must be among the classes")
    fresh, _ = _states(consumers, ids, ridge)
    loss = sum(state.remove(c) for state in deepcopy(fresh) for c in out)
    for _ in range(rounds):
        before = loss
        for n, mine in enumerate(out):
            others = out[:n] + out[n + 1 :]
            states = deepcopy(fresh)
            base = sum(state.remove(c) for state in states for c in others)
            costs = base + np.sum([state.costs() for state in states], axis=0)
            costs = np.broadcast_to(costs, ids.shape).copy()
            costs[others] = np.inf
            best = int(costs.argmin())
            if best != mine and costs[best] < loss - 1e-9 * abs(loss):
                out[n], loss = best, float(costs[best])
        if loss == before:
            break
    return ids[np.asarray(out, dtype=np.int64)], loss


def _states(
    consumers: Sequence[Consumer], ids: Integers, ridge: float
) -> tuple[list[Downdate], list[list[Downdate]]]:
    """Return the state of each consumer, and those that read each class."""
    states = []
    readers: list[list[Downdate]] = [[] for _ in ids]
    for consumer in consumers:
        block = _positions(np.asarray(consumer.owner, dtype=np.int64), ids)
        state = Downdate(
            consumer.H, consumer.W, block, ids.size, ridge=ridge, weight=consumer.weight
        )
        states.append(state)
        for c in np.unique(block[block >= 0]):
            readers[c].append(state)
    return states, readers


def _positions(owner: Integers, ids: Integers) -> Integers:
    """Return where in ids (K,) each owner (d,) stands, or −1."""
    if not ids.size:
        return np.full(owner.shape, -1)
    order = np.argsort(ids)
    at = order[np.searchsorted(ids, owner, sorter=order).clip(max=ids.size - 1)]
    return np.where(ids[at] == owner, at, -1)


def refit(
    H: npt.ArrayLike,
    G: npt.ArrayLike,
    keep: npt.ArrayLike,
    W0: npt.ArrayLike,
    *,
    ridge: float = 1e-2,
) -> Floats:
    """Return the weights W_S (M, s) on the features that are kept.

    They minimise E‖y − W_S x_S‖² + ridge·Σ_j H_jj·‖W_S,j − W0_S,j‖². H is E[x xᵀ] (d, d), G is
    E[y xᵀ] (M, d), with x the inputs as they are now and y the outputs wanted (of the model as it
    was); keep (s,) are indices, or (d,) a mask. W0 (M, d) are the old weights, kept as they are
    for features that are always 0. With G = W0 H these are the weights that `eliminate` reckons
    with, at the same ridge.

    Raises:
        VerificationError: an argument is not finite, or H is not positive semidefinite.
    """
    from scipy.linalg import cho_factor, cho_solve

    H, G, W0 = finite(H, "the moments"), finite(G, "the moments"), finite(W0, "the weights")
    chosen = np.asarray(keep)
    S = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
    if not S.size:  # scipy 1.12 solves nothing that is empty
        return np.zeros((len(W0), 0))
    ridge = max(ridge, LEAST_RIDGE)
    energy = H.diagonal()[S]
    some = energy > np.finfo(np.float64).tiny
    root = np.sqrt(np.where(some, energy, 1.0))
    # In features of E[x²] = 1; one that is always 0 has nothing but the ridge to hold it.
    left = H[np.ix_(S, S)] / root / root[:, None]
    right = np.where(some, G[:, S] / root, 0.0)
    old = W0[:, S] * root
    while ridge <= 1.0:
        hold = np.where(some, ridge, 1.0)
        try:
            factor = cho_factor(left + np.diag(hold), lower=True)
        except np.linalg.LinAlgError:
            ridge = max(10 * ridge, 1e-6)
            continue
        return np.asarray(cho_solve(factor, (right + hold * old).T).T / root)
    raise VerificationError("the second moments of the features are not positive semidefinite")
