"""Bits per filter: least total distortion within a budget of cost.

    minimise Σ_f D[f, b_f]   subject to   Σ_f C[f, b_f] ≤ budget

This is a multiple-choice knapsack. With a Lagrange multiplier λ the filters separate, and each
one takes a vertex of the lower convex hull of its (cost, distortion) points. Sorting the edges of
all hulls by slope −ΔD/ΔC and taking them in order is the exact solution for every λ at once; the
first edge that does not fit ends it. The relaxed optimum lies at most that one edge lower. What
then remains of the budget goes to the best upgrades that still fit, hull vertices or not.

Source: Shoham and Gersho (1988), "Efficient bit allocation for an arbitrary set of quantizers";
Sinha and Zoltners (1979) for the bound on the multiple-choice knapsack.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import BudgetError, VerificationError
from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.midrise import Floats


def allocate_bits(
    distortion: npt.ArrayLike,
    cost: npt.ArrayLike,
    budget: float,
    *,
    minimum_bits: npt.ArrayLike = 0,
    fill: bool = True,
) -> Integers:
    """Return the bits b (F,) of each filter, with Σ cost[f, b_f] ≤ budget.

    distortion and cost are (F, B): column b is what b bits leave and what they cost, in any units
    (squared error and MAC·bit). minimum_bits is a scalar or (F,); a filter without any distortion
    at the fewest bits (all zero) is exempt from it. Bits that save no distortion are not spent.
    Without `fill` only edges of the hulls are taken, and what remains is left.

    Raises:
        BudgetError: the cheapest choice costs more than the budget.
        VerificationError: a distortion or a cost is not finite.
    """
    D, C = np.asarray(distortion, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    if D.shape != C.shape or D.ndim != 2:
        raise ValueError(f"distortion {D.shape} and cost {C.shape} must be (F, B), and equal")
    if not (np.isfinite(D).all() and np.isfinite(C).all()):
        raise VerificationError("the distortion or the cost of a filter is not finite")
    floor = np.where(D[:, 0] == 0, 0, np.broadcast_to(np.asarray(minimum_bits), D.shape[:1]))
    allowed = np.arange(D.shape[1]) >= floor[:, None]
    if not allowed.any(axis=1).all():
        raise ValueError(f"minimum_bits must be below {D.shape[1]}")

    b = _cheapest(D, C, allowed)
    rows = np.arange(b.size)
    spent = float(C[rows, b].sum())
    if spent > budget:
        raise BudgetError(
            f"a cost of {budget:.6g} cannot be reached: the cheapest allocation costs {spent:.6g}. "
            "Raise the target, lower the minimum bits or prune filters first."
        )
    b = _climb_hulls(D, C, allowed, b, budget - spent)
    return _fill(D, C, allowed, b, budget) if fill else b


def _cheapest(D: Floats, C: Floats, allowed: npt.NDArray[np.bool_]) -> Integers:
    """Return the option of least cost of each filter; among equals, of least distortion."""
    least = np.where(allowed, C, np.inf).min(axis=1, keepdims=True)
    return np.asarray(np.where(allowed & (least == C), D, np.inf).argmin(axis=1), dtype=np.int64)


def _slopes(D: Floats, C: Floats, allowed: npt.NDArray[np.bool_], b: Integers) -> Floats:
    """Return the distortion saved per cost (F, B) of going from b to each option; −1 if none."""
    rows = np.arange(b.size)
    saved, extra = D[rows, b][:, None] - D, C - C[rows, b][:, None]
    useful = allowed & (saved > 0) & (extra > 0)
    return np.where(useful, saved / np.where(useful, extra, 1.0), -1.0)


def _climb_hulls(
    D: Floats, C: Floats, allowed: npt.NDArray[np.bool_], start: Integers, left: float
) -> Integers:
    """Take hull edges of all filters in order of slope, up to the first that does not fit."""
    filters: list[Integers] = []
    slope: list[Floats] = []
    option: list[Integers] = []
    extra: list[Floats] = []
    at, steepest = start.copy(), np.full(start.size, np.inf)
    while True:
        slopes = _slopes(D, C, allowed, at)
        # Among equal slopes the farthest vertex, so that no hull point is left on an edge.
        to = slopes.shape[1] - 1 - slopes[:, ::-1].argmax(axis=1)
        f = np.flatnonzero(slopes[np.arange(at.size), to] > 0)
        if not f.size:
            break
        # Slopes fall along a hull; the minimum keeps rounding errors from reversing two of them.
        steepest[f] = np.minimum(steepest[f], slopes[f, to[f]])
        filters.append(f)
        slope.append(steepest[f])
        option.append(to[f])
        extra.append(C[f, to[f]] - C[f, at[f]])
        at[f] = to[f]
    if not filters:
        return start
    order = np.argsort(-np.concatenate(slope), kind="stable")  # stable: a hull's edges in order
    taken = order[np.cumsum(np.concatenate(extra)[order]) <= left]
    b: Integers = start.copy()
    # The last assignment to a filter is its farthest edge.
    b[np.concatenate(filters)[taken]] = np.concatenate(option)[taken]
    return b


def _fill(
    D: Floats, C: Floats, allowed: npt.NDArray[np.bool_], b: Integers, budget: float
) -> Integers:
    """Spend what is left on single upgrades, best slope first, until none fits."""
    rows = np.arange(b.size)
    left = budget - float(C[rows, b].sum())
    queue: list[tuple[float, int, int, int, float]] = []

    def offer(filters: Integers) -> None:
        """The upgrades of some filters that fit. As `left` falls, none of the others ever will."""
        extra = C[filters] - C[filters, b[filters]][:, None]
        slopes = _slopes(D[filters], C[filters], allowed[filters], b[filters])
        f, to = np.nonzero((slopes > 0) & (extra <= left))
        each = (-slopes[f, to], filters[f], to, b[filters[f]], extra[f, to])
        queue.extend(zip(*(x.tolist() for x in each), strict=True))

    offer(rows)
    heapq.heapify(queue)
    while queue:
        _, f, to, start, extra = heapq.heappop(queue)
        if extra > left or start != b[f]:
            continue
        left -= extra
        b[f] = to
        known = len(queue)
        offer(np.array([f]))
        fresh, queue[known:] = queue[known:], []
        for upgrade in fresh:
            heapq.heappush(queue, upgrade)
    return b
