from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.numerics import basis
from onnx_esn.numerics.basis import balanced_basis, random_rotation
from onnx_esn.numerics.midrise import Floats


def grams(c: int, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    V, W = (rng.normal(size=(c, 3 * c)) * np.exp(rng.normal(size=(c, 1))) for _ in range(2))
    return V @ V.T, W @ W.T


def harm(M: Floats, P: Floats, C: Floats) -> float:
    """Σ_r (M P Mᵀ)_rr (M⁻ᵀ C M⁻¹)_rr."""
    inverse = np.linalg.inv(M)
    return float(np.diagonal(M @ P @ M.T) @ np.diagonal(inverse.T @ C @ inverse))


def evened(A: Floats) -> Floats:
    return A + basis.EVEN * np.trace(A) / len(A) * np.eye(len(A))


@given(st.integers(1, 24), st.integers(0, 2**32))
def test_both_sides_weigh_the_same(c: int, seed: int) -> None:
    P, C = grams(c, seed)
    M, inverse = balanced_basis(P, C, np.random.default_rng(seed))
    np.testing.assert_allclose(M @ inverse, np.eye(c), atol=1e-9)
    made, read = M @ evened(P) @ M.T, inverse.T @ evened(C) @ inverse
    np.testing.assert_allclose(made, read, rtol=1e-6, atol=1e-8 * np.abs(made).max())


@given(st.integers(1, 12), st.integers(0, 2**32))
def test_no_basis_is_below_the_bound(c: int, seed: int) -> None:
    """(Σσ)²/c."""
    P, C = (evened(A) for A in grams(c, seed))
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(P)
    bound = float(np.sqrt(np.linalg.eigvalsh(root.T @ C @ root)).sum()) ** 2 / c
    for _ in range(5):
        assert harm(rng.normal(size=(c, c)), P, C) >= bound * (1 - 1e-9)
    assert harm(np.eye(c), P, C) >= bound * (1 - 1e-9)


@given(st.integers(1, 30), st.integers(0, 2**32))
def test_the_balanced_basis_reaches_it(c: int, seed: int) -> None:
    P, C = grams(c, seed)
    A, B = evened(P), evened(C)
    root = np.linalg.cholesky(A)
    bound = float(np.sqrt(np.linalg.eigvalsh(root.T @ B @ root)).sum()) ** 2 / c
    M, _ = balanced_basis(P, C, np.random.default_rng(seed))
    np.testing.assert_allclose(harm(M, A, B), bound, rtol=1e-6)
    diagonal = np.diagonal(M @ A @ M.T)
    np.testing.assert_allclose(diagonal, diagonal.mean(), rtol=1e-6)


def test_nothing_made_or_read() -> None:
    zero, (P, _) = np.zeros((5, 5)), grams(5, 0)
    for a, b in ((zero, P), (P, zero), (zero, zero)):
        M, inverse = balanced_basis(a, b, np.random.default_rng(0))
        np.testing.assert_allclose(M @ inverse, np.eye(5), atol=1e-9)


def test_rotations_are_orthogonal_and_seeded() -> None:
    first, again = (random_rotation(9, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first @ first.T, np.eye(9), atol=1e-12)
