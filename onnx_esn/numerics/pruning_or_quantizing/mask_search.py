"""The best mask for a few weights, by branch and bound; the gap where that takes too long.

With A = H⁻¹, the weights that are left refitted, taking away the set R costs
f(R) = w_Rᵀ (A_RR)⁻¹ w_R, and f grows with R. Weight after weight, the dearest first, is kept or
taken away; A and w then are those of the consumer without it. For r more that have to go from
those undecided, U, the rest of the cost is at least

- the r-th smallest w_i²/A_ii in U, for one that dear is among those that go;
- the sum of the r smallest w_i²/t_i, for any diagonal T with T − A positive semidefinite, as
  A_RR ⪯ T_RR. One T, λ_max(D^−½ A D^−½)·D with D = diag(A), serves all nodes: A only shrinks.

Source: Furnival and Wilson (1974), "Regressions by leaps and bounds"; the second bound is ours.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.midrise import Bools, Floats
from onnx_esn.numerics.pruning_or_quantizing.masks import greedy_order

MOST_NODES = 2000


@dataclass(frozen=True, eq=False)
class MaskSearch:
    """What was found.

    Attributes:
        keep: the mask (n,).
        error: its error with the weights refitted.
        bound: no mask has less; the same as `error` where the search came to its end.
        nodes: that were looked at.
    """

    keep: Bools
    error: float
    bound: float
    nodes: int


@dataclass(frozen=True, eq=False)
class _Node:
    A: Floats
    w: Floats
    open: Bools
    left: int  # still to be taken away
    loss: float
    gone: tuple[int, ...]


def best_mask(H: Floats, w: Floats, kept: int, most_nodes: int = MOST_NODES) -> MaskSearch:
    """The mask of so many weights with the least error (w − ŵ)ᵀ H (w − ŵ), ŵ refitted.

    Args:
        H: symmetric and positive definite (n, n).
        w: the weights (n,).
        kept: how many stay.
        most_nodes: after these, the best mask so far and a bound are returned.
    """
    n = w.size
    A = np.linalg.inv(H)
    A = (A + A.T) / 2.0
    keep, error = _start(A, w, kept)
    root = np.sqrt(A.diagonal())
    T = float(np.linalg.eigvalsh(A / root / root[:, None])[-1]) * np.square(root)
    first = _Node(A, w, np.ones(n, np.bool_), n - kept, 0.0, ())
    # The least bound first: when it meets the best mask, that is the optimum.
    queue = [(_bound(first, T), 0, first)]
    nodes = 0
    while queue and nodes < most_nodes:
        bound, _, node = heapq.heappop(queue)
        if bound >= error * (1 - 1e-12):
            queue = []
            break
        nodes += 1
        for child in _children(node):
            if child.left == 0:
                if child.loss < error:
                    error = child.loss
                    keep = np.ones(n, np.bool_)
                    keep[list(child.gone)] = False
            elif child.left <= int(child.open.sum()):
                b = _bound(child, T)
                if b < error * (1 - 1e-12):
                    heapq.heappush(queue, (b, -nodes, child))
    bound = min((entry[0] for entry in queue), default=error)
    return MaskSearch(keep, error, min(bound, error), nodes)


def _start(A: Floats, w: Floats, kept: int) -> tuple[Bools, float]:
    order, added = greedy_order(A, w)
    gone = w.size - kept
    keep = np.ones(w.size, np.bool_)
    keep[order[:gone]] = False
    return keep, float(added[:gone].sum())


def _bound(node: _Node, T: Floats) -> float:
    U = node.open
    if not node.left:
        return node.loss
    squares = np.square(node.w[U])
    single = np.partition(squares / node.A.diagonal()[U], node.left - 1)[node.left - 1]
    together = np.partition(squares / T[U], node.left - 1)[: node.left].sum()
    return node.loss + max(float(single), float(together))


def _children(node: _Node) -> tuple[_Node, _Node]:
    """The dearest of the undecided kept, and taken away."""
    cost = np.where(node.open, np.square(node.w) / node.A.diagonal(), -1.0)
    i = int(cost.argmax())
    rest = node.open.copy()
    rest[i] = False
    keeps = _Node(node.A, node.w, rest, node.left, node.loss, node.gone)
    column = node.A[:, i] / node.A[i, i]
    A = node.A - column[:, None] * node.A[i]
    w = node.w - column * node.w[i]
    # Its row is 0 now; the diagonal is divided by, and never again of use there.
    A[i, i], w[i] = 1.0, 0.0
    goes = _Node(A, w, rest, node.left - 1, node.loss + float(cost[i]), (*node.gone, i))
    return keeps, goes
