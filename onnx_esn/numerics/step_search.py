"""Searching the best steps of some filters at a time, at one number of bits after another.

`step_size` says what is looked for. Where a filter has many breakpoints, `step_cells` rules out
most of the range by bounds, at up to five bits. Above that the bounds are weak, and `step_samples`
looks at steps so close that the error between them is smooth; only the neighbourhood of the best is
swept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics import midrise, midtread
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.step_cells import Table, best_steps, breakpoints, sort_keys, table_size
from onnx_esn.numerics.step_samples import neighbourhoods

_FEW_BREAKPOINTS = 512  # a filter with no more is swept over its whole range
_EXACT_BREAKPOINTS = 1 << 14  # so is one with no more, where bounds are weak
_BOUNDED_RISES = 15  # up to 5 bits
TIE = 1e-12  # of ‖W‖²: among equally good steps the largest is taken
_CHUNK = 1 << 16  # breakpoints at a time, so that temporaries stay in the cache
_NEAR = 1  # breakpoints of a weight in the neighbourhood of a step, roughly


@dataclass(frozen=True)
class Levels:
    """What a sweep has to know of a quantizer.

    Attributes:
        lowest: the smallest magnitude of its codes, ½ or 0.
        least: the smallest one above 0, ½ or 1.
        encode: (W (M, K), step (M,), bits) → codes W_int (M, K).
    """

    lowest: float
    least: float
    encode: Callable[[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike], Floats]


MID_RISE = Levels(0.5, 0.5, midrise.encode)
MID_TREAD = Levels(0.0, 1.0, midtread.encode)


class Search:
    """The best steps of some filters, at one number of bits after another.

    Args:
        A: magnitudes (m, K) below 1.
        widths: the numbers of bits that will be asked for.
        levels: of the quantizer.
    """

    def __init__(self, A: Floats, widths: Sequence[int], levels: Levels) -> None:
        self.live = A.any(axis=1) if A.shape[1] else np.zeros(A.shape[0], dtype=bool)
        self.A = A if self.live.all() else A[self.live]
        self.levels = levels
        self.peak, self.mean = (
            self.A.max(axis=1, initial=0.0),
            self.A.sum(axis=1) / max(1, A.shape[1]),
        )
        self.energy = np.einsum("mk,mk->m", self.A, self.A)
        self.crowded: set[int] = set()
        self._found: dict[int, tuple[Floats, Floats]] = {}
        K = A.shape[1]
        finest = [min(_rises(b), _BOUNDED_RISES) for b in widths]
        bounded = [r for r in finest if _is_bounded(K, r)]
        # The finest one serves all widths.
        self.table = Table(self.A, table_size(K, max(bounded))) if bounded and self.A.size else None

    def is_exact(self, bits: int) -> bool:
        """Whether `best(bits)` has compared all codes that any step can give."""
        rises, K = _rises(bits), self.A.shape[1]
        return K * rises <= _EXACT_BREAKPOINTS or (
            _is_bounded(K, rises) and bits not in self.crowded
        )

    def best(self, bits: int) -> tuple[Floats, Floats]:
        """The best Δ (m,), 0 where all magnitudes are 0, and the squared error (m,) it leaves."""
        if bits not in self._found:
            self._found[bits] = self._best(bits)
        return self._found[bits]

    def _best(self, bits: int) -> tuple[Floats, Floats]:
        step, error = np.zeros(self.live.size), np.zeros(self.live.size)
        A, lowest, rises = self.A, self.levels.lowest, _rises(bits)
        top = rises + lowest
        if not A.size or top == 0:
            error[self.live] = self.energy
            return step, error
        highest = self.peak / self.levels.least  # no Δ = P/Q is above it: |c| ≤ c²/least
        if rises == 0:
            step[self.live] = np.minimum(self.mean / lowest, highest)
            error[self.live] = np.maximum(self.energy - A.shape[1] * self.mean**2, 0.0)
            return step, error
        # Nor below this: c ≤ top grows with |w|, so P/Q ≥ mean|w|/top. The margins let breakpoints
        # at the very ends take part.
        low, high = self.mean / top * (1.0 - 1e-9), highest * (1.0 + 1e-9)
        found = None
        if _is_bounded(A.shape[1], rises):
            assert self.table is not None
            found = best_steps(self.table, rises, lowest, low, TIE)
            if found is None and A.shape[0] > 1:
                return self._by_halves(bits)  # what a filter gets is not its neighbours' affair
            if found is None:
                self.crowded.add(bits)
        if found is None and self.is_exact(bits):
            found, _ = _sweep(A, rises, lowest, low, high)
        elif found is None:
            most = np.minimum(high, 4.0 * self.peak / (rises + 1))
            found, gain = np.zeros(A.shape[0]), np.zeros(A.shape[0])
            for near in neighbourhoods(A, rises, lowest, low, most):
                one, more = _sweep(A, rises, lowest, *near)
                found = np.where(more > gain * (1.0 + TIE), one, found)
                gain = np.maximum(gain, more)
            found = self._not_worse(found, gain, bits)
        # In full precision, from the codes.
        c = self.levels.encode(A, np.minimum(found, highest), bits)
        P, Q = np.einsum("mk,mk->m", c, A), np.einsum("mk,mk->m", c, c)
        step[self.live] = np.minimum(P / Q, highest)
        error[self.live] = np.maximum(self.energy - P * P / Q, 0.0)
        return step, error

    def _not_worse(self, found: Floats, gain: Floats, bits: int) -> Floats:
        """`found`, or the best step of so few bits that all codes were compared.

        Filters of few values, or on a coarser grid but for rounding, have a dip there that lies
        between two samples.
        """
        fewer = max((b for b in range(2, bits) if self.is_exact(b)), default=0)
        if not fewer:
            return found
        other = self.best(fewer)[0][self.live]
        c = self.levels.encode(self.A, other, bits)
        P, Q = np.einsum("mk,mk->m", c, self.A), np.einsum("mk,mk->m", c, c)
        return np.where(gain * Q * (1.0 + TIE) < P * P, other, found)

    def _by_halves(self, bits: int) -> tuple[Floats, Floats]:
        """`best` where the cells of all filters together are too many."""
        step, error = np.zeros(self.live.size), np.zeros(self.live.size)
        found = []
        for part in np.array_split(self.A, 2):
            search = Search(part, [bits], self.levels)
            found.append(search.best(bits))
            self.crowded |= search.crowded
        step[self.live] = np.concatenate([x for x, _ in found])
        error[self.live] = np.concatenate([x for _, x in found])
        return step, error


def _rises(bits: int) -> int:
    """How often a code goes up from its lowest to its highest magnitude."""
    return (1 << (bits - 1)) - 1


def _is_bounded(K: int, rises: int) -> bool:
    """Whether `step_cells` rules out most of the sweep."""
    return rises <= _BOUNDED_RISES and K * rises > _FEW_BREAKPOINTS


def chunks(
    rows: npt.NDArray[np.intp], K: int, widths: Sequence[int]
) -> Iterator[npt.NDArray[np.intp]]:
    """The rows, filters of K weights, in parts that fit the cache when searched for these bits."""
    size = max(1, _CHUNK // max(K, 1, *(_numbers(K, _rises(b)) for b in widths)))
    return (rows[i : i + size] for i in range(0, rows.size, size))


def _numbers(K: int, rises: int) -> int:
    """How many numbers a filter takes, roughly."""
    if _is_bounded(K, rises):
        return table_size(K, rises)
    return K * (rises if K * rises <= _EXACT_BREAKPOINTS else _NEAR)


def normalised(W: Floats) -> tuple[Floats, npt.NDArray[np.int32]]:
    """Return |W|·2^-e with its largest value in [0.5, 1) for each filter, and e: exact."""
    A = np.abs(W)
    exponent = np.frexp(A.max(axis=1, initial=0.0))[1]
    return np.ldexp(A, -exponent[:, None]), exponent


def _sweep(
    A: Floats, rises: int, lowest: float, low: Floats, high: Floats
) -> tuple[Floats, Floats]:
    """The Δ = P/Q (m,) of the largest P²/Q over all codes met from Δ = high to low, and this."""
    m = A.shape[0]
    up = 0.5 - lowest  # |w|/Δ + up, rounded down, is how often the code has risen
    below = np.minimum(np.floor(A / high[:, None] + up), rises)
    count = (np.minimum(np.floor(A / low[:, None] + up), rises) - below).astype(np.int64)
    c = below + lowest
    P0, Q0 = np.einsum("mk,mk->m", c, A), np.einsum("mk,mk->m", c, c)

    flat = count.ravel()
    start = np.cumsum(flat) - flat
    k = np.arange(flat.sum()) - np.repeat(start - below.ravel().astype(np.int64) - 1, flat)
    per_row = count.sum(axis=1)
    keys = np.zeros((m, int(per_row.max(initial=0))), dtype=np.int64)
    keys[np.arange(keys.shape[1]) < per_row[:, None]] = sort_keys(np.repeat(A.ravel(), flat), k, up)
    keys.sort(axis=1)
    w, rise = breakpoints(keys[:, ::-1], up)  # from the largest down; padding (k = 0) comes last
    P = np.cumsum(np.concatenate([P0[:, None], w], axis=1), axis=1)
    Q = np.cumsum(np.concatenate([Q0[:, None], 2.0 * rise], axis=1), axis=1)
    gain = np.divide(P * P, Q, out=np.zeros_like(P), where=Q > 0)  # Q = 0: no code has risen yet
    best = (gain >= gain.max(axis=1, keepdims=True) * (1.0 - TIE)).argmax(axis=1)
    rows = np.arange(m)
    return P[rows, best] / Q[rows, best], gain[rows, best]
