import numpy as np
import pytest

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.elimination import eliminate, refit
from tests.numerics.test_elimination import consumer


@pytest.mark.parametrize("as_mask", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 1e-3, 0.1])
def test_refit_finds_the_least_squares_solution(ridge, as_mask):
    rng = np.random.default_rng(4)
    X, Y = rng.standard_normal((60, 8)), rng.standard_normal((60, 5))
    W0, keep = rng.standard_normal((5, 8)), np.array([0, 2, 3, 7])
    H, G = X.T @ X / 60, Y.T @ X / 60
    given_keep = np.isin(np.arange(8), keep) if as_mask else keep
    W = refit(H, G, given_keep, W0, ridge=ridge)
    # The ridge as rows of data that pull each weight to its old value.
    pull = np.diag(np.sqrt(max(ridge, 1e-9) * np.diag(H)[keep]))
    rows = np.concatenate([X[:, keep] / np.sqrt(60), pull])
    wanted = np.concatenate([Y / np.sqrt(60), pull @ W0[:, keep].T])
    np.testing.assert_allclose(W, np.linalg.lstsq(rows, wanted, rcond=None)[0].T, atol=1e-8)


@pytest.mark.parametrize("samples", [4, 40])
@pytest.mark.parametrize("ridge", [1e-4, 1e-2])
def test_refit_to_the_old_outputs_has_the_loss_that_elimination_reckons_with(ridge, samples):
    c = consumer(np.random.default_rng(6), np.repeat(np.arange(5), 2), samples=samples)
    result = eliminate([c], range(5), ridge=ridge)
    for n in range(1, 5):
        keep = ~np.isin(c.owner, result.order[:n])
        change = c.W.copy()
        change[:, keep] -= refit(c.H, c.W @ c.H, keep, c.W, ridge=ridge)
        H = c.H + ridge * np.diag(np.diag(c.H))
        assert np.trace(change @ H @ change.T) == pytest.approx(result.loss[n], rel=1e-7)


def test_refit_keeps_the_weights_of_features_that_are_always_zero():
    H = np.diag([2.0, 0, 1])
    W = refit(H, np.ones((1, 3)), [0, 1], np.array([[5.0, 6, 7]]), ridge=0)
    np.testing.assert_allclose(W, [[0.5, 6]], rtol=1e-6)
    assert refit(H, np.ones((1, 3)), [], np.ones((1, 3))).shape == (1, 0)


def test_moments_that_no_features_have_are_refused():
    bad = np.array([[1.0, 5], [5, 1]])
    with pytest.raises(VerificationError, match="semidefinite"):
        refit(bad, np.ones((1, 2)), [0, 1], np.ones((1, 2)))
