"""Factors of inverses and linear systems, beside numpy's general ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.numerics.positive_definite import inverse_factor, solve

SIZES = st.sampled_from([1, 2, 7, 31, 32, 33, 64, 90])


def moments(G, d, seed, *, samples=3):
    X = np.random.default_rng(seed).normal(size=(G, samples * d, d))
    return X.transpose(0, 2, 1) @ X / (samples * d) + 1e-2 * np.eye(d)


@given(st.integers(0, 3), SIZES, st.integers(0, 1000))
def test_the_factor_is_upper_triangular_and_gives_the_inverse(G, d, seed):
    H = moments(G, d, seed)
    before = H.copy()
    U = inverse_factor(H)
    assert U.shape == H.shape
    assert U.dtype == np.float64
    np.testing.assert_array_equal(U, np.triu(U))
    assert (np.einsum("gii->gi", U) > 0).all()
    np.testing.assert_allclose(U.transpose(0, 2, 1) @ U, np.linalg.inv(H), rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(H, before)


@given(SIZES, st.integers(0, 1000))
def test_rows_and_columns_may_lie_anyhow(d, seed):
    H = moments(2, d, seed)
    turned = np.asfortranarray(H.transpose(2, 1, 0)).transpose(2, 1, 0)
    np.testing.assert_array_equal(inverse_factor(turned), inverse_factor(H))


@given(st.integers(1, 3), SIZES, st.integers(1, 5), st.integers(0, 1000))
def test_systems_are_solved(G, d, m, seed):
    A = moments(G, d, seed)
    X = np.random.default_rng(seed + 1).normal(size=(G, d, m))
    np.testing.assert_allclose(solve(A, A @ X), X, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("function", "d"),
    [
        (inverse_factor, 8),
        (inverse_factor, 50),
        (lambda H: solve(H, np.ones((1, 50, 1))), 50),  # smaller ones are solved by LU
    ],
)
def test_what_is_not_positive_definite_is_refused(function, d):
    H = moments(1, d, 0)
    H[0, d - 1, d - 1] = -1.0
    with pytest.raises(np.linalg.LinAlgError):
        function(H)
