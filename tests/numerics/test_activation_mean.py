import numpy as np
import pytest
from scipy.special import expit

from onnx_esn.numerics.activation_mean import gaussian_mean, gaussian_moments, relu_moments
from tests.oracles import numerics as oracle

ACTIVATIONS = {
    "relu": (lambda x: np.maximum(x, 0), (0,)),
    "clip": (lambda x: np.clip(x, 0, 6), (0, 6)),
    "hardswish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), (-3, 3)),
    "sigmoid": (expit, ()),
    "leaky": (lambda x: np.where(x > 0, x, 0.1 * x), (0,)),
}
CASES = [(0.0, 1.0), (2.0, 0.5), (-3.0, 1.0), (5.8, 0.3), (0.1, 20.0), (-0.01, 1e-3), (40.0, 3.0)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_trapezoid_rule_equals_adaptive_quadrature(name):
    f, kinks = ACTIVATIONS[name]
    mean, variance = gaussian_moments(f, *np.array(CASES).T)
    for i, (mu, sigma) in enumerate(CASES):
        expected = oracle.gaussian_moments(f, mu, sigma, kinks)
        assert abs(mean[i] - expected[0]) <= 1e-4 * (abs(mu) + sigma)
        assert abs(variance[i] - expected[1]) <= 1e-4 * (abs(mu) + sigma) ** 2


def test_no_deviation_is_exact():
    mu = np.array([-1.0, 0.0, 0.3, 7.0])
    for f, _ in ACTIVATIONS.values():
        mean, variance = gaussian_moments(f, mu, 0.0)
        np.testing.assert_array_equal(mean, f(mu))
        np.testing.assert_array_equal(variance, 0.0)


def test_relu_in_closed_form_equals_the_quadrature():
    grid = np.array([(m, s) for m in (-30, -2.5, -0.3, 0, 0.4, 3, 1000) for s in (1e-2, 0.5, 4)])
    mean, variance = relu_moments(*grid.T)
    found_mean, found_variance = gaussian_moments(lambda x: np.maximum(x, 0), *grid.T)
    np.testing.assert_allclose(mean, found_mean, rtol=1e-12, atol=5e-5 * 4)
    size = np.abs(grid).sum(axis=1)
    assert (np.abs(mean - found_mean) <= 2e-5 * size).all()
    assert (np.abs(variance - found_variance) <= 1e-4 * grid[:, 1] ** 2).all()


def test_relu_in_closed_form_equals_adaptive_quadrature():
    relu, kinks = ACTIVATIONS["relu"]
    for mu, sigma in [(0.0, 1.0), (-2.0, 0.7), (3.0, 2.0)]:
        expected = oracle.gaussian_moments(relu, mu, sigma, kinks)
        np.testing.assert_allclose(relu_moments(mu, sigma), expected, rtol=1e-9)


def test_relu_at_its_limits():
    mean, variance = relu_moments([1e6, -1e6, 2.0, -2.0, 0.0], [1e-3, 1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(mean, [1e6, 0, 2, 0, 0], rtol=1e-15, atol=1e-300)
    np.testing.assert_allclose(variance, [1e-6, 0, 0, 0, 0], rtol=1e-9, atol=1e-300)


def test_a_linear_function_keeps_both_moments():
    mean, variance = gaussian_moments(lambda x: 3 * x + 1, [2.0, -5.0], [0.5, 2.0])
    np.testing.assert_allclose(mean, [7, -14], rtol=1e-13)
    np.testing.assert_allclose(variance, [2.25, 36], rtol=1e-9)


def test_shapes_and_scalars():
    assert gaussian_mean(np.abs, 0.0, 1.0).shape == ()
    assert gaussian_mean(np.abs, 0.0, 1.0) == pytest.approx(np.sqrt(2 / np.pi), abs=5e-5)
    assert gaussian_mean(np.abs, np.zeros((2, 3)), np.ones(3)).shape == (2, 3)
    assert gaussian_mean(np.abs, np.zeros(0), np.zeros(0)).shape == (0,)
    many = gaussian_mean(np.abs, 0.0, np.ones(700))  # more than one chunk
    np.testing.assert_allclose(many, many[0], rtol=1e-14)
