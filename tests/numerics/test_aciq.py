"""Clipping values against published constants, integrals and brute force; bias correction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from onnx_esn.numerics.aciq import (
    PRIORS,
    clipped_codes,
    clipping_factor,
    corrected,
    gauss_error,
    laplace_error,
    level_count,
)
from onnx_esn.numerics.quantizers import MID_RISE, MID_TREAD, QUANTIZERS

ERRORS = {"gauss": gauss_error, "laplace": laplace_error}
DENSITIES = {"gauss": stats.norm, "laplace": stats.laplace}

# As printed in the paper for 2, 3, 4 bits, and by its authors' code up to 8.
GAUSS = (1.71063519, 2.15159277, 2.55913646, 2.93620062, 3.28691474, 3.6151146, 3.92403714)
LAPLACE = (2.83068299, 3.89722946, 5.02864014, 6.20476633, 7.41312622, 8.64561995, 9.89675982)


@pytest.mark.parametrize(("prior", "published"), [("gauss", GAUSS), ("laplace", LAPLACE)])
def test_published_constants(prior, published):
    found = [clipping_factor(prior, 2**bits) for bits in range(2, 9)]
    # Theirs come from a minimiser that stops near the flat minimum.
    np.testing.assert_allclose(found, published, rtol=2e-6)


@pytest.mark.parametrize("prior", list(ERRORS))
@pytest.mark.parametrize("levels", [2, 3, 4, 7, 16, 255])
def test_the_factor_is_the_minimum(prior, levels):
    best = clipping_factor(prior, levels)
    grid = np.linspace(0.2, 14, 200_001)
    error = ERRORS[prior](grid, levels)
    assert abs(grid[error.argmin()] - best) < 1e-4
    assert ERRORS[prior](best, levels) <= error.min() * (1 + 1e-12)


@pytest.mark.parametrize("prior", list(ERRORS))
@pytest.mark.parametrize("alpha", [0.5, 1.7, 4.0])
def test_the_clipped_tails_against_the_integral(prior, alpha):
    density = DENSITIES[prior]
    tail, _ = integrate.quad(lambda x: (x - alpha) ** 2 * density.pdf(x), alpha, np.inf)
    closed = float(ERRORS[prior](alpha, np.inf))
    assert abs(closed - 2 * tail) < 1e-10


@pytest.mark.parametrize("prior", list(ERRORS))
@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_errors_scale_with_the_square(prior, scale):
    wide = ERRORS[prior](2.0 * scale, 8, scale)
    np.testing.assert_allclose(wide, scale**2 * ERRORS[prior](2.0, 8), rtol=1e-12)


@pytest.mark.parametrize("prior", list(ERRORS))
@pytest.mark.parametrize(("bits", "within"), [(4, 0.12), (6, 0.03), (8, 0.008)])
def test_the_closed_form_against_the_quantizer_itself(prior, bits, within):
    """Cell by cell: values beyond α go to the outermost level, half a step inside."""
    density, levels = DENSITIES[prior], 2**bits
    alpha = clipping_factor(prior, levels)
    step = 2 * alpha / levels
    exact = 0.0
    for k in range(levels // 2):
        middle, upper = (k + 0.5) * step, np.inf if k == levels // 2 - 1 else (k + 1) * step
        cell = integrate.quad(lambda x, m=middle: (x - m) ** 2 * density.pdf(x), k * step, upper)
        exact += 2 * cell[0]
    assert abs(float(ERRORS[prior](alpha, levels)) / exact - 1) < within


@pytest.mark.parametrize("prior", list(ERRORS))
def test_the_closed_form_against_drawn_numbers(prior):
    """Clipped at α, with rounding noise of its own: what the formula is the expectation of."""
    rng = np.random.default_rng(7)
    draw = rng.standard_normal if prior == "gauss" else rng.laplace
    x = draw(size=2_000_000)
    alpha, levels = clipping_factor(prior, 8), 8
    noise = rng.uniform(-alpha / levels, alpha / levels, x.size)
    squared = (np.clip(x, -alpha, alpha) + noise - x) ** 2
    error = squared.std() / np.sqrt(x.size)
    assert abs(squared.mean() - float(ERRORS[prior](alpha, levels))) < 4 * error


@pytest.mark.parametrize(
    ("quantizer", "expected"), [(MID_RISE, [1, 2, 4, 8, 256]), (MID_TREAD, [1, 1, 3, 7, 255])]
)
def test_levels(quantizer, expected):
    assert [level_count(b, quantizer) for b in (0, 1, 2, 3, 8)] == expected


def naive(w, bits, quantizer):
    """One filter, one prior after the other."""
    mean, top = w.mean(), float(quantizer.top_code(bits))
    levels, best = 1 + 2 * top, None
    peak = max(abs(w - mean))
    for prior in PRIORS:
        if prior == "none":
            alpha = peak
        else:
            scale = w.std() if prior == "gauss" else np.mean(np.abs(w - mean))
            alpha = min(clipping_factor(prior, round(levels)) * scale, peak)
        step = 2 * alpha / levels
        code = quantizer.round_codes((w - mean) / step, top)
        error = np.sum((mean + step * code - w) ** 2)
        if best is None or error < best[0]:
            best = error, code, step, prior
    return best[1:]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(QUANTIZERS.values())),
    st.integers(2, 8),
    st.sampled_from(["standard_normal", "laplace", "uniform"]),
    st.integers(0, 10_000),
)
def test_codes_are_those_of_the_best_prior(quantizer, bits, kind, seed):
    W = getattr(np.random.default_rng(seed), kind)(size=(5, 40)) * 0.1 + 0.03
    codes, step, priors = clipped_codes(W, bits, quantizer)
    for m, w in enumerate(W):
        code, delta, prior = naive(w, bits, quantizer)
        np.testing.assert_array_equal(codes[m], code)
        np.testing.assert_allclose(step[m], delta, rtol=1e-12)
        assert PRIORS[priors[m]] == prior


def test_each_prior_is_chosen_for_its_own():
    rng = np.random.default_rng(0)
    gauss, laplace = rng.standard_normal((20, 4000)), rng.laplace(size=(20, 4000))
    outlier = rng.normal(scale=0.01, size=(20, 40))
    outlier[:, 5] = 1.0
    for W, bits, prior in ((gauss, 4, "gauss"), (laplace, 4, "laplace"), (outlier, 8, "none")):
        assert {PRIORS[p] for p in clipped_codes(W, bits)[2]} == {prior}


def test_filters_without_bits_or_deviation_get_no_step():
    W = np.random.default_rng(0).normal(size=(4, 9))
    W[1] = 0.7
    W[2] = 0
    codes, step, _ = clipped_codes(W, [3, 3, 3, 0])
    assert (step > 0).tolist() == [True, False, False, False]
    assert not codes[1:].any()
    codes, step, _ = clipped_codes(W, 1, MID_TREAD)
    assert not codes.any()
    assert not step.any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10_000), st.floats(-3, 3))
def test_mean_and_norm_are_given_back(bits, seed, mean):
    W = np.random.default_rng(seed).laplace(size=(6, 30)) + mean
    codes, step, _ = clipped_codes(W, bits)
    delta, shift = corrected(W, codes, step)
    Q = delta[:, None] * codes + shift[:, None]
    np.testing.assert_allclose(Q.mean(axis=1), W.mean(axis=1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(Q.std(axis=1), W.std(axis=1), rtol=1e-12)


def test_equal_codes_have_no_norm_to_give_back():
    W = np.array([[1.0, 1.2, 0.8]])
    delta, shift = corrected(W, np.zeros((1, 3)), np.array([0.5]))
    assert delta == [0.5]
    np.testing.assert_allclose(shift, [1.0], rtol=1e-15)
