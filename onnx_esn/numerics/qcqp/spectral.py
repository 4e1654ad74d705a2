"""One weight d_a per kind with diag(d) − N ⪰ 0: it bounds x̃ᵀNx̃ by Σ_a d_a·‖x̃_a‖².

N (n, n) is what the matrices between kinds hold besides row and column means, half above and half
below the diagonal. Of all such d, one with small Σ_a d_a·h_a is wanted, h_a = k_a(1 − k_a/n_a) at
the counts that matter: a small semidefinite program, solved by exponentiated subgradients (kinds
in which the top eigenvector has more than its share get more). Any d that this ends with is valid
once it is scaled by the largest eigenvalue of D^(−1/2) N D^(−1/2).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnx_esn.numerics.qcqp.instance import Floats, Integers
from onnx_esn.numerics.qcqp.kinds import Kinds
from onnx_esn.numerics.qcqp.tables import Edges, split

_MOST = 2500  # classes; beyond, eigenvalues take too long
_ROUNDS = 60
_PATIENCE, _GAIN = 8, 1e-3  # rounds without such a gain end it
_SAFE = 1 + 1e-9


def spectral(
    edges: Edges, kinds: Kinds, share: Floats, out_of_time: Callable[[], bool] = lambda: False
) -> Floats:
    """Return valid weights d (K,).

    Args:
        edges: the worths.
        kinds: the kinds.
        share: h (K,) ≥ 0 that the weights are made for.
        out_of_time: the best so far is returned once this says so.
    """
    h = np.maximum(share, 0.25)
    d = _by_pairs(edges, len(kinds), h)
    n = kinds.of.size
    if n > _MOST or not d.any():
        return d
    sizes = np.array(kinds.sizes)
    start = np.append(0, np.cumsum(sizes))
    N = np.zeros((n, n))
    for (a, b), E in edges.between.items():
        rest = split(E)[3]
        one, two = slice(start[a], start[a + 1]), slice(start[b], start[b + 1])
        if a == b:
            N[one, one] = rest
        else:
            N[one, two], N[two, one] = rest / 2, rest.T / 2
    owner = np.repeat(np.arange(len(kinds)), sizes)
    return _improved(N, owner, d, h, out_of_time)


def _by_pairs(edges: Edges, kinds: int, h: Floats) -> Floats:
    """Weights that bound each pair of kinds for itself: x̃ᵀNỹ ≤ σ/2·(t‖x̃‖² + ‖ỹ‖²/t)."""
    d = np.zeros(kinds)
    for (a, b), E in edges.between.items():
        norm = float(np.linalg.norm(split(E)[3], 2)) * _SAFE
        t = float(np.sqrt(h[b] / h[a]))
        d[a] += norm / 2 * t
        d[b] += norm / 2 / t
    return d


def _improved(
    N: Floats, owner: Integers, d: Floats, h: Floats, out_of_time: Callable[[], bool]
) -> Floats:
    from scipy.linalg import eigh

    best, value = d, float(d @ h)
    log = np.log(np.maximum(d, d.max() * 1e-3))
    n, since = owner.size, 0
    for step in range(_ROUNDS):
        if since >= _PATIENCE or out_of_time():
            break
        root = np.exp(-log / 2)[owner]
        M = root[:, None] * N * root
        top, vector = eigh(M, subset_by_index=[n - 1, n - 1], driver="evr")
        scaled = np.exp(log) * max(float(top[0]), 0.0) * _SAFE
        found = float(scaled @ h)
        since = 0 if found < value * (1 - _GAIN) else since + 1
        if found < value:
            best, value = scaled, found
        mass = np.bincount(owner, vector[:, 0] ** 2, d.size)
        wanted = scaled * h / max(found, 1e-300)
        log = log + 2.0 / (step + 4) * (mass - wanted) / np.maximum(mass + wanted, 1e-12)
    return best
