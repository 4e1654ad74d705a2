"""Which positions of convolution kernels to give up: the importance of each, shared over inputs.

A filter j has one weight for each input channel i and kernel position p. A position is kept or
given up for all inputs at once, so its importance is

    I[j, p] = Σ_i |W[j, i, p]|,   divided by the norm of the layer's I, so that layers compare.

Two ways to spend a budget: `select_positions` gives up the least important ones of each filter;
`choose_windows` cuts whole border rows and columns off a layer's kernels, which then are smaller.

Source: Jeong, Kim and Song (2022), "Succinct network channel and spatial pruning via discrete
variable QCQP" (its spatial masks q); the windows are ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SOLVER_SECONDS = 60.0
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Cut:
    """What is cut off a kernel at the two ends of each of its axes.

    Attributes:
        begin, end: positions, one number an axis.
    """

    begin: tuple[int, ...]
    end: tuple[int, ...]

    def __bool__(self) -> bool:
        return any(self.begin) or any(self.end)

    def left(self, kernel: Sequence[int]) -> tuple[int, ...]:
        """The size of a kernel after the cut."""
        pairs = zip(kernel, self.begin, self.end, strict=True)
        return tuple(k - a - b for k, a, b in pairs)

    def slices(self, kernel: Sequence[int]) -> tuple[slice, ...]:
        """What of each axis stays."""
        pairs = zip(kernel, self.begin, self.end, strict=True)
        return tuple(slice(a, k - b) for k, a, b in pairs)


@dataclass(frozen=True)
class Window:
    """A way to cut a layer's kernels.

    Attributes:
        cut: the cut.
        loss: importance that goes.
        share: share of the positions that stays.
    """

    cut: Cut
    loss: float
    share: float


def position_importance(rows: npt.ArrayLike, positions: int) -> Floats:
    """I (M, P) of filters (M, d), of which the kernel position is the fastest axis; of norm 1."""
    W = np.abs(np.asarray(rows, np.float64))
    found: Floats = W.reshape(len(W), -1, positions).sum(axis=1)
    norm = float(np.linalg.norm(found))
    return found / norm if norm > 0 else found


def select_positions(
    importance: Sequence[Floats], ratio: float, scope: str = "layer"
) -> list[Mask]:
    """For each layer, which positions (M, P) stay: at most `ratio` of all go, the least ones first.

    Each filter keeps its most important position, and others of equal importance the earlier ones.

    Args:
        importance: of each layer.
        ratio: share of the positions that goes.
        scope: "layer": the same share of each layer; "global": all ranked together.
    """
    if scope == "layer":
        return [_least_gone([x], ratio)[0] for x in importance]
    return _least_gone(importance, ratio)


def _least_gone(importance: Sequence[Floats], ratio: float) -> list[Mask]:
    scores = []
    for x in importance:
        score = x.copy()
        score[np.arange(len(x)), x.argmax(axis=1)] = np.inf
        scores.append(score.ravel())
    every = np.concatenate(scores)
    budget = math.floor(ratio * every.size + 1e-9)
    # Of two equal ones the later goes: the order is that of the reversed positions.
    order = every.size - 1 - np.argsort(every[::-1], kind="stable")
    gone = order[: min(budget, int(np.isfinite(every).sum()))]
    kept = np.ones(every.size, np.bool_)
    kept[gone] = False
    parts = np.split(kept, np.cumsum([x.size for x in importance])[:-1])
    return [part.reshape(x.shape) for part, x in zip(parts, importance, strict=True)]


def common_cut(kept: Mask, kernel: Sequence[int], most: Cut) -> Cut:
    """The border rows and columns that no filter keeps, within `most`.

    Args:
        kept: (M, P), which positions stay.
        kernel: size of the kernel.
        most: what may be cut.
    """
    used = kept.any(axis=0).reshape(kernel)
    begin, end = [], []
    for axis, size in enumerate(kernel):
        others = tuple(i for i in range(len(kernel)) if i != axis)
        at = np.flatnonzero(used.any(axis=others))
        first, last = (int(at[0]), int(at[-1])) if at.size else (0, 0)
        begin.append(min(first, most.begin[axis]))
        end.append(min(size - 1 - last, most.end[axis]))
    return Cut(tuple(begin), tuple(end))


def windows(importance: Floats, kernel: Sequence[int], most: Cut) -> list[Window]:
    """Every way to cut a layer that no other beats: less loss at the same size, the whole first.

    Args:
        importance: (M, P).
        kernel: size of the kernel.
        most: what may be cut.
    """
    total = importance.sum(axis=0).reshape(kernel)
    axes = []
    for k, a, b in zip(kernel, most.begin, most.end, strict=True):
        axes.append([(x, y) for x in range(a + 1) for y in range(b + 1) if x + y < k])
    best: dict[int, Window] = {}
    for ends in itertools.product(*axes):
        cut = Cut(tuple(x for x, _ in ends), tuple(y for _, y in ends))
        size = math.prod(cut.left(kernel))
        loss = float(total.sum() - total[cut.slices(kernel)].sum()) if cut else 0.0
        if size not in best or loss < best[size].loss:
            best[size] = Window(cut, loss, size / math.prod(kernel))
    found: list[Window] = []
    for _, window in sorted(best.items(), reverse=True):  # large to small
        while found and found[-1].loss >= window.loss and found[-1].cut:
            found.pop()
        found.append(window)
    return found


def choose_windows(
    options: Sequence[Sequence[Window]], costs: Sequence[float], budget: float
) -> list[int] | None:
    """Which window of each layer: the least loss within the budget; None where there is none.

    A multiple-choice knapsack, solved exactly (by HiGHS; after a minute the best so far).

    Args:
        options: of each layer.
        costs: of each layer with its whole kernels.
        budget: for Σ cost·share.
    """
    of = np.concatenate([np.full(len(w), i) for i, w in enumerate(options)])
    every = [window for w in options for window in w]
    cost = np.array([costs[i] * w.share for i, w in zip(of, every, strict=True)])
    loss = np.array([w.loss for w in every])
    scale = max(float(cost.max()), 1.0)
    # The solver allows itself to be this far off (relative to `scale`): the second time it may not.
    for margin in (0.0, _TOLERANCE):
        chosen = _solved(of, loss, cost / scale, budget / scale - margin)
        if chosen is None or float(cost[chosen].sum()) <= budget * (1 + 1e-12):
            break
    if chosen is None:
        return None
    first = np.searchsorted(of, np.arange(len(options)))
    return [int(x) for x in chosen - first]


def _solved(
    of: NDArray[np.int64], loss: Floats, cost: Floats, budget: float
) -> NDArray[np.int64] | None:
    """One index for each number in `of`, ascending."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    one_each = csr_array((np.ones(of.size), (of, np.arange(of.size))))
    found = milp(
        loss,
        integrality=np.ones(of.size, np.int64),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(cost[None], -np.inf, budget),
        ],
        options={"time_limit": _SOLVER_SECONDS, "mip_rel_gap": 1e-9},
    )
    return None if found.x is None else np.flatnonzero(found.x > 0.5)
