import numpy as np
import pytest

from onnx_esn.numerics.signal_norm import batchnorm_gain, l1_norm, signal_norm


def test_norms_equal_the_loops():
    rng = np.random.default_rng(0)
    W, gain = rng.standard_normal((5, 7)), rng.standard_normal(5)
    for m in range(5):
        assert signal_norm(W)[m] == pytest.approx(sum(w**2 for w in W[m]))
        assert signal_norm(W, gain)[m] == pytest.approx(sum((w * gain[m]) ** 2 for w in W[m]))
        assert l1_norm(W)[m] == pytest.approx(sum(abs(w) for w in W[m]))
        assert l1_norm(W, gain)[m] == pytest.approx(sum(abs(w * gain[m]) for w in W[m]))


def test_half_precision_weights_do_not_overflow():
    assert signal_norm(np.full((1, 4), 300, np.float16))[0] == 4 * 300**2


def test_the_gain_is_that_of_a_batchnorm():
    gamma, var, eps = np.array([1.0, -2.0]), np.array([4.0, 0.0]), 1e-4
    np.testing.assert_allclose(batchnorm_gain(gamma, var, eps), [1 / np.sqrt(4.0001), -200.0])
