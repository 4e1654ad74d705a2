"""Which weights of filters to keep, and what they become: little error (w − ŵ)ᵀ H (w − ŵ).

- *Magnitude*: the largest weights, then refitted by least squares.
- *Greedy*: with A = H⁻¹, taking weight i away costs w_i²/A_ii once the others make up for it; the
  cheapest goes, A ← A − A_:i A_i:/A_ii, w ← w − A_:i w_i/A_ii, and so on.

Source: Hassibi and Stork (1993), "Optimal brain surgeon".
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from onnx_esn.numerics.midrise import Bools, Floats

Integers = npt.NDArray[np.int64]
_AT_ONCE = 32
_RIDGE = 1e-10  # of the mean of the diagonal: what rounding errors leave of a singular H


def refit(H: Floats, w: Floats, keep: Bools) -> Floats:
    """Weights ŵ (d,), 0 where `keep` is not set, of least (w − ŵ)ᵀ H (w − ŵ).

    With H close to singular, near w where H does not care.
    """
    S = np.flatnonzero(keep)
    found = np.zeros_like(w)
    if S.size:
        ridge = _RIDGE * float(H.diagonal().mean())
        A = H[np.ix_(S, S)] + (ridge if ridge > 0 else 1.0) * np.eye(S.size)
        gone = ~keep
        extra = H[np.ix_(S, np.flatnonzero(gone))] @ w[gone]
        found[S] = w[S] + cho_solve(cho_factor(A, lower=True), extra)
    return found


def mask_error(H: Floats, w: Floats, keep: Bools) -> float:
    """(w − ŵ)ᵀ H (w − ŵ) of the refitted weights."""
    z = w - refit(H, w, keep)
    return max(float(z @ H @ z), 0.0)


def magnitude_masks(W: Floats, kept: int) -> Bools:
    """The largest `kept` of all weights (m, d) together; of equals the first."""
    order = np.argsort(-np.abs(W).reshape(-1), kind="stable")
    keep = np.zeros(W.size, np.bool_)
    keep[order[:kept]] = True
    return keep.reshape(W.shape)


def greedy_order(A: Floats, w: Floats) -> tuple[Integers, Floats]:
    """Order (d,) in which the weights of a filter go, and what each adds to the error (d,).

    Args:
        A: inverse (d, d) of H; left as it is.
        w: the filter (d,).
    """
    d = w.size
    A, w, diagonal = A.copy(), w.copy(), A.diagonal().copy()
    order, added = np.empty(d, np.int64), np.empty(d)
    gone = np.zeros(d, np.bool_)
    # Columns of what A has lost: applied many at a time, as a product of matrices.
    U = np.zeros((d, _AT_ONCE))
    for n in range(d):
        u = n % _AT_ONCE
        if n and not u:
            A -= U @ U.T
        floor = np.maximum(diagonal, np.finfo(np.float64).tiny)
        cost = np.where(gone, np.inf, np.square(w) / floor)
        i = int(cost.argmin())
        order[n], added[n] = i, cost[i]
        U[:, u] = (A[:, i] - U[:, :u] @ U[i, :u]) / np.sqrt(floor[i])
        w -= U[:, u] * (w[i] / np.sqrt(floor[i]))
        diagonal -= np.square(U[:, u])
        gone[i], w[i] = True, 0.0
    return order, added


def greedy_masks(order: Integers, added: Floats, kept: int) -> Bools:
    """Masks (m, d) that keep so many weights of all filters together, the dearest to remove.

    Args:
        order, added: of each filter (m, d), see `greedy_order`.
        kept: how many stay.
    """
    m, d = order.shape
    keep = np.ones((m, d), np.bool_)
    queue = [(float(added[r, 0]), r, 0) for r in range(m)] if d else []
    heapq.heapify(queue)
    for _ in range(m * d - kept):
        _, r, n = heapq.heappop(queue)
        keep[r, order[r, n]] = False
        if n + 1 < d:
            heapq.heappush(queue, (float(added[r, n + 1]), r, n + 1))
    return keep
