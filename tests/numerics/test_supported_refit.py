"""The refit with zeros that stay, filter by filter against plain least squares."""

import numpy as np
import pytest

from onnx_esn.numerics.cross_moments import cross_moments, refit
from onnx_esn.numerics.supported_refit import (
    columns,
    refit_supported,
    shared_support,
    support_work,
)

G, N, D, M = 2, 200, 7, 5


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(G, N, D)) + 1, rng.normal(size=(G, N, M))
    support = rng.random((G, M, D)) < 0.6
    support[0, 0] = False  # a filter that lost all
    support[0, 1] = support[0, 2]  # two that are alike
    W0 = np.where(support, rng.normal(size=(G, M, D)), 0.0)
    return cross_moments(x, y), W0, support


@pytest.mark.parametrize("ridge", [0.0, 0.1, 10.0])
def test_each_filter_by_itself(problem, ridge):
    moments, W0, support = problem
    found = refit_supported(moments, W0, support, ridge)
    assert not found[~support].any()
    H, C = moments.H, moments.C
    for g, m in np.ndindex(G, M):
        S = np.flatnonzero(support[g, m])
        extra = ridge * np.trace(H[g]) / D
        A = H[g][np.ix_(S, S)] + extra * np.eye(len(S))
        wanted = np.linalg.solve(A, C[g, m, S] + extra * W0[g, m, S])
        np.testing.assert_allclose(found[g, m, S], wanted, rtol=1e-9, atol=1e-12)


def test_all_weights_is_the_plain_refit(problem):
    moments, _, _ = problem
    W0 = np.random.default_rng(1).normal(size=(G, M, D))
    full = np.ones(W0.shape, bool)
    np.testing.assert_allclose(
        refit_supported(moments, W0, full, 0.5), refit(moments, W0, 0.5), rtol=1e-9
    )
    assert support_work(full) == pytest.approx(G * D**3 / 3)


def test_a_support_that_all_share(problem):
    moments, _, support = problem
    assert shared_support(support) is None
    same = np.zeros((G, M, D), bool)
    same[..., [1, 4, 5]] = True
    kept = shared_support(same)
    assert kept.tolist() == [1, 4, 5]
    small = columns(moments, kept)
    np.testing.assert_allclose(small.H, moments.H[:, kept][:, :, kept])
    np.testing.assert_allclose(small.C, moments.C[..., kept])
