"""The best step of long filters, with most of the sweep ruled out by bounds.

`step_size` says what is looked for: the codes that any step Δ can give, of which the sweep takes
those of the largest P²/Q. It sorts all breakpoints |w|/(k − up); here only few of them are looked
at, and nothing is lost.

Steps are cut into cells at Δ_j = j·u, u a power of two, so that every threshold (k − up)·Δ_j lies
on a grid of u. One table per filter, of how many weights lie above each place of this grid and what
they add up to, gives P and Q at all Δ_j by strided slices. The error f(Δ) = ‖W‖² − 2ΔP + Δ²Q of the
nearest codes is continuous with slope 2(ΔQ − P), and P and Q fall with Δ, so that within a cell

    f(Δ) ≥ f_j − 2(P_j − Δ_j·Q_{j+1})·(Δ − Δ_j)
    f(Δ) ≥ f_{j+1} − 2(Δ_{j+1}·Q_j − P_{j+1})·(Δ_{j+1} − Δ)

and no more than the crossing of the two lines can be won there. Cells of eight times the width turn
away most of the range, cells of one the rest; the few that are left are swept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_WIDE = 8  # cells in a wide one
_ROUNDING = 1e-9  # of ‖W‖²: what sums of float64 may be off, and more
_CROWDED = 1 << 21  # breakpoints of the cells that are left, with padding
_CODE_MASK = np.int64(127)  # low bits of a float64 that carry k in the sort key


class Curve(NamedTuple):
    """P, Q and the error f (m, n) at n steps Δ (n,)."""

    delta: Floats
    P: Floats
    Q: Floats
    f: Floats


class Table:
    """Sorted magnitudes (m, K) in [0, 1), and what lies above each place i·2^-t of a grid.

    Attributes:
        ordered: the magnitudes, ascending.
        below: (m, size + 1): how many lie below a place; at 0, how many are 0.
        above: (m, size + 1): the sum of the others.
        total, energy: (m, 1): the sums of all magnitudes and of their squares.
    """

    def __init__(self, A: Floats, size: int) -> None:
        m, K = A.shape
        self.size, self.K = size, K
        self.ordered = np.sort(A, axis=1)
        place = (self.ordered * size).astype(np.int64)
        place += np.arange(m)[:, None] * size
        found = np.bincount(place.ravel(), minlength=m * size).reshape(m, size)
        self.below = np.empty((m, size + 1), np.int64)
        self.below[:, 0] = K - np.count_nonzero(A, axis=1)
        np.cumsum(found, axis=1, out=self.below[:, 1:])
        sums = np.zeros((m, K + 1))
        np.cumsum(self.ordered, axis=1, out=sums[:, 1:])
        self.total = sums[:, -1:]
        self.above = self.total - np.take_along_axis(sums, self.below, axis=1)
        self.energy = np.einsum("mk,mk->m", A, A)[:, None]


class Thresholds:
    """Where the codes of a number of bits rise, on the grid of a table.

    Attributes:
        multiples: (rises,): the thresholds of a step j·u lie at these multiples of j.
        rise: (rises,): k − up, by which they are counted: threshold k is at (k − up)·Δ.
        unit: u.
    """

    def __init__(self, table: Table, rises: int, lowest: float) -> None:
        self.table, self.lowest, self.up = table, lowest, 0.5 - lowest
        self.k = np.arange(1, rises + 1)
        # Mid-tread thresholds are at odd multiples of Δ/2.
        self.multiples = self.k if lowest else np.arange(1, 2 * rises, 2)
        self.unit = (1.0 if lowest else 2.0) / table.size
        self.rise = self.k - self.up

    def curve(self, first: int, last: int, stride: int) -> Curve:
        """P, Q and the error at the steps j·u, j = first, first + stride, … last."""
        table = self.table
        delta: Floats = np.arange(first, last + 1, stride) * np.float64(self.unit)
        P = np.repeat(self.lowest * table.total, delta.size, axis=1)
        Q = np.full(P.shape, self.lowest**2 * table.K)
        for t, rise in zip(self.multiples.tolist(), self.rise.tolist(), strict=True):
            at = slice(t * first, min(t * last, table.size - 1) + 1, t * stride)
            part = table.above[:, at]
            P[:, : part.shape[1]] += part
            Q[:, : part.shape[1]] += 2.0 * rise * (table.K - table.below[:, at])
        return Curve(delta, P, Q, table.energy - 2.0 * delta * P + delta * delta * Q)


def best_steps(table: Table, rises: int, lowest: float, low: Floats, tie: float) -> Floats | None:
    """The Δ = P/Q (m,) of the largest P²/Q of magnitudes (m, K) in [0, 1), none all zero.

    Among codes whose P²/Q agrees to a relative `tie`, those of the largest step are taken.

    Args:
        table: of the magnitudes.
        rises: how often a code can go up.
        lowest: the smallest magnitude of codes, ½ or 0.
        low: (m,), below which no best step lies.
        tie: below 1e-9.

    Returns:
        None where too many cells are left: sweeping the whole range takes less.
    """
    at = Thresholds(table, rises, lowest)
    first = int(low.min() / at.unit) // _WIDE * _WIDE
    wide = at.curve(first, table.size, _WIDE)
    left = np.flatnonzero(_left(wide, table.energy).any(axis=0))
    start = first + _WIDE * int(left[0])
    end = min(first + _WIDE * (int(left[-1]) + 1), table.size)
    narrow = at.curve(start, end, 1)
    # From the largest step down, as ties want it.
    row, cell = np.nonzero(_left(narrow, table.energy)[:, ::-1])
    return _swept(at, narrow, start, row, narrow.delta.size - 2 - cell, tie)


def table_size(K: int, rises: int) -> int:
    """Places of a table for filters of K weights, a power of two: fewer leave more to sweep."""
    return 1 << (max(K, 64 * (rises + 1)) * (2 if rises > 8 else 1)).bit_length() - 1


def sort_keys(w: Floats, k: Integers, up: float) -> Integers:
    """One key for a breakpoint: the float64 w/(k − up), k in the low bits of its mantissa."""
    keys: Integers = (w / (k - up)).view(np.int64) & ~_CODE_MASK | k
    return keys


def breakpoints(keys: Integers, up: float) -> tuple[Floats, Floats]:
    """The magnitudes and k − up of such keys; 0 and 0 of a key that is 0."""
    rise = np.maximum((keys & _CODE_MASK) - up, 0.0)
    return (keys & ~_CODE_MASK).view(np.float64) * rise, rise


def _left(curve: Curve, energy: Floats) -> npt.NDArray[np.bool_]:
    """Which cells (m, n − 1) may hold the best step."""
    delta, P, Q, f = curve
    gain = np.divide(P * P, Q, out=np.zeros_like(P), where=Q > 0)
    reach = energy - gain.max(axis=1, keepdims=True) + _ROUNDING * energy
    down = 2.0 * (P[:, :-1] - delta[:-1] * Q[:, 1:])
    up = 2.0 * (delta[1:] * Q[:, :-1] - P[:, 1:])
    width = np.diff(delta)
    # down ≤ 0: the error grows from the left edge on; up ≤ 0: it falls to the right one.
    fall, rise = np.maximum(down, 0.0), np.maximum(up, 0.0)
    both = fall + rise
    cross = rise * f[:, :-1] + fall * f[:, 1:] - fall * rise * width
    bound = np.divide(cross, both, out=np.minimum(f[:, :-1], f[:, 1:]), where=both > 0)
    return np.asarray(bound <= reach)


def _swept(
    at: Thresholds, curve: Curve, start: int, row: Integers, cell: Integers, tie: float
) -> Floats | None:
    """Sweep the cells (g,) of filters (g,), ordered by filter, then by falling step."""
    table, t = at.table, at.multiples
    j = (cell + start)[:, None]
    upper, lower = np.minimum(t * (j + 1), table.size), np.minimum(t * j, table.size)
    begin = table.below[row[:, None], lower]
    count = table.below[row[:, None], upper] - begin
    longest = int(count.sum(axis=1).max())
    if row.size * longest > _CROWDED:
        return None
    flat = count.ravel()
    ends = np.cumsum(flat)
    offset = np.repeat((begin + row[:, None] * table.K).ravel() - (ends - flat), flat)
    w = table.ordered.ravel()[offset + np.arange(flat.sum())]
    k = np.repeat(np.broadcast_to(at.k, count.shape).ravel(), flat)
    keys = np.zeros((row.size, longest), np.int64)
    keys[np.arange(longest) < count.sum(axis=1)[:, None]] = sort_keys(w, k, at.up)
    keys.sort(axis=1)
    w, rise = breakpoints(keys[:, ::-1], at.up)  # from the largest down; padding comes last
    start_P, start_Q = curve.P[row, cell + 1, None], curve.Q[row, cell + 1, None]
    P = np.cumsum(np.concatenate([start_P, w], axis=1), axis=1)
    Q = np.cumsum(np.concatenate([start_Q, 2.0 * rise], axis=1), axis=1)
    gain = np.divide(P * P, Q, out=np.zeros_like(P), where=Q > 0)
    firsts = np.flatnonzero(np.diff(row, prepend=-1))
    best = np.maximum.reduceat(gain.max(axis=1), firsts)
    good = gain >= best[row, None] * (1.0 - tie)
    # The first group of each filter that has one, and the first state there.
    groups = np.flatnonzero(good.any(axis=1))
    groups = groups[np.flatnonzero(np.diff(row[groups], prepend=-1))]
    state = good[groups].argmax(axis=1)
    return np.asarray(P[groups, state] / Q[groups, state])
