"""The quantizer of QIL: codes by a naive loop, gradients by differences of its smooth part."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.numerics.learning.intervals import Intervals, intervals
from onnx_esn.numerics.quantizers import MID_RISE, MID_TREAD, QUANTIZERS


def some(seed, bits, quantizer=MID_RISE, M=3, K=7):
    rng = np.random.default_rng(seed)
    return Intervals(
        W=rng.normal(size=(M, K)),
        step=rng.uniform(0.2, 0.6, M),
        centre=rng.uniform(0.6, 0.9, M),
        distance=rng.uniform(0.3, 0.8, M),
        exponent=rng.uniform(0.6, 1.8, M),
        bits=np.asarray(bits),
        quantizer=quantizer,
    )


def naive_code(w, c, d, gamma, bits, quantizer):
    """One weight, straight from the equations."""
    if bits == 0:
        return 0.0
    n = 2 ** (bits - 1) if quantizer is MID_RISE else 2 ** (bits - 1) - 1
    if abs(w) < c - d:
        size = 0.0
    elif abs(w) > c + d:
        size = 1.0
    else:
        size = ((0.5 / d) * abs(w) + 0.5 - 0.5 * c / d) ** gamma
    u = math.copysign(size, w)
    if quantizer is MID_TREAD:
        return round(u * n)
    top = n - 0.5
    code = math.floor(abs(u) * n) + 0.5  # the grid is even
    if w < 0:
        code = -(math.ceil(abs(u) * n) - 0.5) if abs(u) * n > 0 else -0.5
    return max(-top, min(top, code))


@pytest.mark.parametrize("name", QUANTIZERS)
@given(seed=st.integers(0, 2**32 - 1))
def test_codes_follow_the_equations(name, seed):
    quantizer = QUANTIZERS[name]
    bits = np.random.default_rng(seed).choice([0, quantizer.least_bits, 2, 3, 5, 8], 3)
    x = some(seed, bits, quantizer)
    wanted = [
        [
            naive_code(w, x.centre[m], x.distance[m], x.exponent[m], int(bits[m]), quantizer)
            for w in row
        ]
        for m, row in enumerate(x.W)
    ]
    np.testing.assert_array_equal(x.codes(), wanted)
    np.testing.assert_array_equal(x.values(), x.codes() * x.step[:, None])


def smooth(x):
    """Ŵ without the rounding: what the straight-through gradients are those of."""
    t = np.clip(0.5 + (np.abs(x.W) - x.centre[:, None]) / (2 * x.distance[:, None]), 0, 1)
    n = 2.0 ** (x.bits - 1) if x.quantizer is MID_RISE else 2.0 ** (x.bits - 1) - 1
    return x.step[:, None] * n[:, None] * np.sign(x.W) * t ** x.exponent[:, None]


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("key", ["W", "centre", "distance", "exponent"])
def test_gradients_are_those_of_the_smooth_part(name, key):
    x = some(1, [2, 3, 5], QUANTIZERS[name])
    G = np.random.default_rng(2).normal(size=x.W.shape)
    found, h = x.gradients(G)[key], 1e-6
    array = x.parameters[key]
    for at in range(array.size):
        sides = []
        for sign in (1, -1):
            array.flat[at] += sign * h
            sides.append((G * smooth(x)).sum())
            array.flat[at] -= sign * h
        assert found.flat[at] == pytest.approx((sides[0] - sides[1]) / (2 * h), rel=1e-5, abs=1e-8)


def test_gradient_of_the_step_is_that_of_the_grid_itself():
    x = some(1, [2, 3, 5])
    G = np.random.default_rng(2).normal(size=x.W.shape)
    np.testing.assert_allclose(x.gradients(G)["step"], (G * x.codes()).sum(axis=1))


@pytest.mark.parametrize("name", QUANTIZERS)
@given(seed=st.integers(0, 2**32 - 1))
def test_starts_at_the_codes_it_is_given(name, seed):
    quantizer, rng = QUANTIZERS[name], np.random.default_rng(seed)
    bits = rng.choice([0, 2, 3, 8, *([1] if quantizer is MID_RISE else [])], 4)
    W, top = rng.normal(size=(4, 9)), quantizer.top_code(bits)[:, None]
    codes = quantizer.round_codes(rng.uniform(-1.2, 1.2, W.shape) * (top + 0.5), top)
    step = np.where(bits > 0, rng.uniform(0.01, 2, 4), 0.0)
    x = intervals(W, codes, step, bits, quantizer)
    np.testing.assert_array_equal(x.codes(), codes)
    np.testing.assert_array_equal(x.values(), codes * step[:, None])


def test_of_a_filter_without_bits_nothing_is_learned():
    x = intervals(np.ones((1, 3)), np.zeros((1, 3)), np.zeros(1), np.zeros(1, np.int64))
    for value in x.gradients(np.ones((1, 3))).values():
        assert not value.any()
    x.settle()
    assert not x.values().any()


def test_settling_keeps_intervals_open():
    x = some(3, [2, 2, 2])
    x.distance[:] = -1.0
    x.exponent[:] = 100.0
    x.settle()
    assert (x.distance > 0).all()
    assert (x.exponent <= 4).all()
    assert np.isfinite(x.values()).all()
