from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.numerics.cross_moments import (
    RIDGES,
    CrossMoments,
    choose_ridge,
    cross_moments,
    no_moments,
    quadratic,
    refit,
)

Floats = npt.NDArray[np.float64]


def naive(x: Floats, y: Floats) -> CrossMoments:
    """Two loops and the formulas as they stand."""
    G, n, d = x.shape
    m = y.shape[2]
    x_mean, y_mean = x.mean(axis=1), y.mean(axis=1)
    xx, yx, yy = np.zeros((G, d, d)), np.zeros((G, m, d)), np.zeros((G, m))
    for g, k in np.ndindex(G, n):
        a, b = x[g, k] - x_mean[g], y[g, k] - y_mean[g]
        xx[g] += np.outer(a, a)
        yx[g] += np.outer(b, a)
        yy[g] += b * b
    return CrossMoments(n, x_mean, y_mean, xx, yx, yy)


def samples(rng: np.random.Generator, G: int, n: int, d: int, m: int) -> tuple[Floats, Floats]:
    x = rng.normal(size=(G, n, d)) @ rng.normal(size=(G, d, d)) + rng.normal(size=(G, 1, d))
    y = x @ rng.normal(size=(G, d, m)) + rng.normal(size=(G, n, m)) - 2.0
    return x, y


def assert_same(one: CrossMoments, other: CrossMoments, rtol: float = 1e-5) -> None:
    for f in fields(CrossMoments):
        a, b = np.asarray(getattr(one, f.name)), np.asarray(getattr(other, f.name))
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * (np.abs(b).max(initial=0) + 1e-6))


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 5), st.integers(1, 4)),
    st.lists(st.floats(0, 1), max_size=4),
)
def test_any_split_merges_to_the_formulas(
    seed: int, shape: tuple[int, int, int, int], cuts: list[float]
) -> None:
    x, y = samples(np.random.default_rng(seed), *shape)
    G, n, d, m = shape
    wanted = naive(x, y)
    edges = [0, *sorted(round(c * n) for c in cuts), n]
    parts = [(a, b) for a, b in pairwise(edges) if b > a]
    found = [cross_moments(x[:, a:b], y[:, a:b]) for a, b in parts]
    left = no_moments(G, m, d)
    for part in found:
        left = left.merge(part)
    right = no_moments(G, m, d)
    for part in reversed(found):
        right = part.merge(right)
    added = None
    for a, b in parts:
        added = cross_moments(x[:, a:b], y[:, a:b], added)
    assert added is not None
    assert_same(added, wanted)
    assert_same(left, wanted)
    assert_same(right, wanted)
    np.testing.assert_allclose(left.H, wanted.xx / n, atol=1e-4 * (1 + np.abs(wanted.H).max()))
    np.testing.assert_allclose(left.C, wanted.yx / n, atol=1e-4 * (1 + np.abs(wanted.C).max()))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_types_of_tensors(dtype: type) -> None:
    x, y = (v.astype(dtype) for v in samples(np.random.default_rng(0), 2, 30, 3, 2))
    found = cross_moments(x, y)
    assert_same(found, naive(x.astype(np.float64), y.astype(np.float64)))
    assert {getattr(found, f.name).dtype for f in fields(found) if f.name != "count"} == {
        np.dtype(np.float64)
    }


def test_a_large_mean_costs_no_precision() -> None:
    rng = np.random.default_rng(1)
    x = 1000.0 + rng.normal(size=(1, 400, 3))
    y = -500.0 + x @ rng.normal(size=(1, 3, 2))
    assert_same(cross_moments(x, y), naive(x, y))
    halves = cross_moments(x[:, :150], y[:, :150]).merge(cross_moments(x[:, 150:], y[:, 150:]))
    assert_same(halves, naive(x, y))


def test_no_sample_has_no_moments() -> None:
    none = no_moments(2, 3, 4)
    assert none.count == 0
    assert not none.H.any()
    assert none.C.shape == (2, 3, 4)
    assert none.merge(none).count == 0
    W = np.random.default_rng(0).normal(size=(2, 3, 4))
    np.testing.assert_array_equal(refit(none, W, 0.1), W)


def test_quadratic_is_the_variance_of_the_outputs() -> None:
    rng = np.random.default_rng(2)
    x, _ = samples(rng, 2, 500, 4, 1)
    W = rng.normal(size=(2, 3, 4))
    H = naive(x, x).H
    np.testing.assert_allclose(quadratic(W, H), (x @ W.transpose(0, 2, 1)).var(axis=1))


@pytest.mark.parametrize("G", [1, 3])
def test_a_tiny_ridge_is_least_squares(G: int) -> None:
    rng = np.random.default_rng(3)
    x, y = samples(rng, G, 200, 5, 3)
    found = refit(naive(x, y), rng.normal(size=(G, 3, 5)), 1e-12)
    for g in range(G):
        with_bias = np.hstack([x[g], np.ones((200, 1))])
        wanted = np.linalg.lstsq(with_bias, y[g], rcond=None)[0][:-1].T
        np.testing.assert_allclose(found[g], wanted, rtol=1e-6, atol=1e-8)


def test_a_huge_ridge_leaves_the_weights() -> None:
    rng = np.random.default_rng(4)
    x, y = samples(rng, 2, 50, 4, 3)
    W = rng.normal(size=(2, 3, 4))
    np.testing.assert_allclose(refit(naive(x, y), W, 1e12), W, atol=1e-8)


def test_any_ridge_minimises_what_it_says() -> None:
    rng = np.random.default_rng(5)
    x, y = samples(rng, 1, 60, 4, 2)
    moments, W0 = naive(x, y), rng.normal(size=(1, 2, 4))
    D = moments.H[0].diagonal().mean()

    def objective(W: Floats) -> float:
        gap = (y - y.mean(axis=1)) - (x - x.mean(axis=1)) @ W.transpose(0, 2, 1)
        return float((gap**2).sum() / 60 + 0.3 * D * ((W - W0) ** 2).sum())

    best = refit(moments, W0, 0.3)
    for _ in range(50):
        assert objective(best) <= objective(best + 1e-3 * rng.normal(size=best.shape))


def test_silent_inputs_leave_their_weights() -> None:
    rng = np.random.default_rng(6)
    x, y = samples(rng, 2, 50, 3, 2)
    x[1] = 0.25
    W = rng.normal(size=(2, 2, 3))
    found = refit(cross_moments(x, y), W, 0.03)
    np.testing.assert_array_equal(found[1], W[1])
    assert np.abs(found[0] - W[0]).max() > 0.01


def halves(x: Floats, y: Floats) -> tuple[CrossMoments, CrossMoments]:
    return cross_moments(x[:, ::2], y[:, ::2]), cross_moments(x[:, 1::2], y[:, 1::2])


def test_few_noisy_samples_hold_the_weights_fast() -> None:
    rng = np.random.default_rng(7)
    x, W = rng.normal(size=(1, 44, 20)), rng.normal(size=(1, 4, 20))
    y = x @ W.transpose(0, 2, 1) + 3.0 * rng.normal(size=(1, 44, 4))
    assert choose_ridge(halves(x, y), W) >= 10.0


def test_many_clean_samples_let_them_go() -> None:
    rng = np.random.default_rng(8)
    x, W = rng.normal(size=(1, 4000, 20)), rng.normal(size=(1, 4, 20))
    y = x @ W.transpose(0, 2, 1)
    assert choose_ridge(halves(x, y), W + rng.normal(size=W.shape)) == min(RIDGES)


def test_weights_that_fit_already_and_a_single_half_hold_fast() -> None:
    rng = np.random.default_rng(9)
    x, W = rng.normal(size=(1, 100, 6)), rng.normal(size=(1, 4, 6))
    y = x @ W.transpose(0, 2, 1)
    assert choose_ridge(halves(x, y), W) == max(RIDGES)
    one = cross_moments(x, y + rng.normal(size=y.shape))
    assert choose_ridge((one, no_moments(1, 4, 6)), W) == max(RIDGES)


def test_the_ridge_is_the_one_of_least_error_on_the_other_half() -> None:
    rng = np.random.default_rng(10)
    for noise in (0.1, 1.0, 4.0):
        x, W = rng.normal(size=(1, 80, 10)), rng.normal(size=(1, 4, 10))
        y = x @ W.transpose(0, 2, 1) + noise * rng.normal(size=(1, 80, 4))
        W0 = W + 0.5 * rng.normal(size=W.shape)
        errors = {}
        for ridge in RIDGES:
            total = 0.0
            for a, b in ((0, 1), (1, 0)):
                fitted = refit(naive(x[:, a::2], y[:, a::2]), W0, ridge)
                gap = y[:, b::2] - x[:, b::2] @ fitted.transpose(0, 2, 1)
                total += float(gap.var(axis=1).sum())
            errors[ridge] = total
        assert choose_ridge(halves(x, y), W0) == min(errors, key=lambda r: errors[r])
