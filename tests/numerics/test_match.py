import numpy as np
import pytest

from onnx_esn.numerics.match import batchnorm_for_match, match_ratio

EPS = 1e-5


def batchnorm(x, gamma, beta, mean, var):
    return gamma * (x - mean) / np.sqrt(var + EPS) + beta


def test_batchnorm_output_gets_the_references_mean_and_deviation():
    rng = np.random.default_rng(0)
    C = 8
    reference = rng.standard_normal((5000, C)) * rng.uniform(0.5, 3, C) + rng.standard_normal(C)
    compressed = reference * rng.uniform(0.3, 1.5, C) + rng.standard_normal((5000, C)) * 0.4 + 0.7
    gamma, beta = rng.standard_normal(C), rng.standard_normal(C)
    # Stored statistics that are not those of these samples, as after training with augmentation.
    stored_mean = reference.mean(axis=0) + 0.3
    stored_var = reference.var(axis=0) * rng.uniform(0.6, 1.7, C)
    mean, var = batchnorm_for_match(
        compressed.mean(axis=0), compressed.var(axis=0),
        reference.mean(axis=0), reference.var(axis=0),
        stored_mean, stored_var, EPS, shrinkage=0.0,
    )  # fmt: skip
    wanted = batchnorm(reference, gamma, beta, stored_mean, stored_var)
    found = batchnorm(compressed, gamma, beta, mean, var)
    np.testing.assert_allclose(found.mean(axis=0), wanted.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.std(axis=0), wanted.std(axis=0), rtol=1e-12)


def test_an_unchanged_model_keeps_its_statistics():
    mean, var = np.array([0.2, -1.0]), np.array([0.5, 2.0])
    stored = np.array([0.1, -0.8]), np.array([0.6, 1.5])
    found = batchnorm_for_match(mean, var, mean, var, *stored, EPS)
    np.testing.assert_allclose(found[0], stored[0], rtol=1e-14)
    np.testing.assert_allclose(found[1], stored[1], rtol=1e-14)


def test_the_mean_matches_exactly_even_where_the_variance_is_guarded_or_shrunk():
    mean_hat, var_hat = np.array([0.3, 2.0]), np.array([0.0, 1e-7])
    mean_ref, var_ref = np.array([1.0, 1.5]), np.array([1e-3, 4.0])
    stored_mean, stored_var = np.array([0.5, 1.0]), np.array([1e-5, 4.0])
    mean, var = batchnorm_for_match(
        mean_hat, var_hat, mean_ref, var_ref, stored_mean, stored_var, EPS, shrinkage=0.0
    )
    assert (var >= 0).all()
    assert var.tolist() == [0.0, 0.0]
    wanted = batchnorm(mean_ref, 1, 0, stored_mean, stored_var)
    np.testing.assert_allclose(batchnorm(mean_hat, 1, 0, mean, var), wanted, rtol=1e-12)


def test_filter_scaling_matches_without_batchnorm():
    rng = np.random.default_rng(1)
    y, y_hat = rng.standard_normal((900, 3)) * 2 + 1, rng.standard_normal((900, 3)) * 0.7 - 1
    r = match_ratio(y.std(axis=0), y_hat.std(axis=0), shrinkage=0.0)
    # W' = r·W and b' = r·(b − m̂) + m turn the pre-activation ŷ into r·(ŷ − m̂) + m.
    moved = r * (y_hat - y_hat.mean(axis=0)) + y.mean(axis=0)
    np.testing.assert_allclose(moved.mean(axis=0), y.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(moved.std(axis=0), y.std(axis=0), rtol=1e-12)


def test_a_collapsed_channel_does_not_blow_up():
    s, s_hat = np.array([1.0, 1.0, 1.0]), np.array([0.9, 0.0, 1e-12])
    r = match_ratio(s, s_hat, shrinkage=1e-2)
    assert r[0] == pytest.approx(1 / 0.9, rel=5e-3)
    assert r[1] == pytest.approx(np.sqrt(1.01 / 0.01))
    assert (match_ratio(s, s_hat) < 32).all()


def test_shrinkage_is_relative_to_the_layer():
    s, s_hat = np.array([1.0, 0.2]), np.array([0.3, 0.1])
    np.testing.assert_allclose(match_ratio(1e-9 * s, 1e-9 * s_hat), match_ratio(s, s_hat))


def test_layers_without_variance_do_not_warn():
    assert match_ratio([0.0, 0.0], [0.0, 1.0]).tolist() == [1.0, 0.0]
    assert match_ratio([], []).size == 0
    zero = np.zeros(2)
    mean, var = batchnorm_for_match(zero + 3, zero, zero + 1, zero, zero, zero + 1, EPS)
    assert mean.tolist() == [2.0, 2.0]
    np.testing.assert_allclose(var, 1.0)
