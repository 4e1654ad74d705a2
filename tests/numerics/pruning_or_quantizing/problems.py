"""Small problems for tests: moments of inputs that go together, and all choices there are."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

Floats = npt.NDArray[np.float64]


def moments(rng: np.random.Generator, n: int, spread: float = 0.6) -> Floats:
    """Positive definite (n, n), of correlated inputs of unequal loudness."""
    X = rng.normal(size=(2 * n + 2, n)) @ (np.eye(n) + spread * rng.normal(size=(n, n)))
    X *= np.exp(spread * rng.normal(size=n))
    return np.asarray(X.T @ X / len(X) + 1e-4 * np.eye(n))


@st.composite
def problems(draw: st.DrawFn, most: int = 7) -> tuple[Floats, Floats]:
    """(P (n, n), w (n,))."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, most))
    P = moments(rng, n, draw(st.sampled_from([0.0, 0.6, 1.5])))
    w = rng.normal(size=n) * draw(st.sampled_from([0.1, 1.0, 5.0]))
    if draw(st.booleans()):
        w[rng.integers(n)] = 0.0
    return P, w


def every_code_error(P: Floats, a: Floats, top: float) -> float:
    """The least (a − c)ᵀ P (a − c) over every choice of half-integer codes up to top."""
    levels = np.arange(-top, top + 1)
    Z = a - np.array(list(itertools.product(levels, repeat=a.size)))
    return float(np.einsum("ki,ij,kj->k", Z, P, Z).min())


def every_mask_error(P: Floats, w: Floats, kept: int) -> float:
    """The least error over every mask, the weights refitted by the normal equations."""
    n = w.size
    errors = []
    for S in itertools.combinations(range(n), kept):
        keep = list(S)
        new = np.zeros(n)
        if keep:
            new[keep] = np.linalg.solve(P[np.ix_(keep, keep)], (P @ w)[keep])
        errors.append(float((w - new) @ P @ (w - new)))
    return min(errors)
