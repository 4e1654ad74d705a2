"""Sums of a training against loops and by hand; the estimate against counted codes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.numerics.esn import esn_a
from onnx_esn.numerics.midrise import decode
from onnx_esn.numerics.quantizers import MID_RISE, MID_TREAD
from onnx_esn.numerics.trajectory import (
    LEAST_TRUSTED,
    EpochSums,
    bits_for,
    estimated_esn,
    quantized_esn,
)


def test_by_hand():
    sums = EpochSums(2)
    sums.add([3.0, 4.0], [3.0, 3.0])  # S 25, N 1
    sums.add([1.0, 2.0], [3.0, 3.0])  # S 5, N 5
    assert (sums.signal, sums.noise, sums.samples) == (30.0, 6.0, 2)
    assert sums.esn_a == pytest.approx(2 / 12 * 30 / 6, rel=1e-15)


def test_nothing_moved():
    sums = EpochSums(2)
    sums.add([3.0, 4.0], [3.0, 4.0])
    assert sums.esn_a is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5))
def test_against_loops(seed, samples, size):
    rng = np.random.default_rng(seed)
    start, walk = rng.normal(size=(3, size)), rng.normal(size=(samples, 3, size))
    sums, S, N = EpochSums(3 * size), 0.0, 0.0
    for W in walk:
        sums.add(W, start)
        for m in range(3):
            for k in range(size):
                S += W[m, k] ** 2
                N += (W[m, k] - start[m, k]) ** 2
    assert sums.signal == pytest.approx(S, rel=1e-12)
    assert sums.noise == pytest.approx(N, rel=1e-12)
    assert sums.esn_a == pytest.approx(3 * size / 12 * S / N, rel=1e-12)


@pytest.mark.parametrize(("step", "off"), [(0.1, 0.001), (0.5, 0.020), (1.0, 0.084), (2.0, 0.377)])
def test_where_eq_4_parts_from_what_is_counted(step, off):
    """An unclipped mid-rise step on Gaussian weights: more is counted than estimated."""
    W = np.random.default_rng(0).normal(size=4_000_000)
    codes = np.floor(W / step) + 0.5
    counted = float((codes**2).sum())
    noise = float(((W - step * codes) ** 2).sum())
    estimate = estimated_esn(W.size, float((W**2).sum()), noise)
    # At fine steps E W_int² = E W²/Δ² + 1/12.
    assert abs(counted / estimate - 1 - off) < 0.002


def test_a_uniform_fine_step_is_estimated_exactly():
    levels = (np.arange(-128, 128) + 0.5)[:, None] + (np.arange(50) + 0.5) / 50 - 0.5
    W = 0.03 * levels.reshape(1, -1)
    codes = np.floor(W / 0.03) + 0.5
    noise = float(((W - 0.03 * codes) ** 2).sum())
    estimate = estimated_esn(W.size, float((W**2).sum()), noise)
    assert abs(esn_a(codes) / estimate - 1) < 5e-4


@pytest.mark.parametrize("quantizer", [MID_RISE, MID_TREAD])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantized_esn_filter_by_filter(quantizer, bits):
    W = np.random.default_rng(bits).normal(size=(5, 60)) * np.array([[1], [2], [0.1], [5], [0]])
    found = quantized_esn(W, bits, quantizer)
    step = quantizer.optimal_step(W, bits)
    codes = quantizer.encode(W, step, bits)
    assert found.counted == float((codes**2).sum())
    noise = ((W - decode(codes, step)) ** 2).sum(axis=1)
    parts = [60 / 12 * (W[m] ** 2).sum() / noise[m] for m in range(4)]
    assert found.estimated == pytest.approx(sum(parts), rel=1e-12)


def test_what_is_exact_has_no_estimate():
    assert quantized_esn(np.array([[0.5, -0.5, 0.5]]), 1).estimated is None


def test_the_estimate_is_trusted_from_about_two_and_a_half_bits():
    W = np.random.default_rng(1).normal(size=(4, 20_000))
    each = [quantized_esn(W, bits).counted / W.size for bits in (2, 3)]
    assert each[0] < LEAST_TRUSTED < each[1]


@pytest.mark.parametrize("quantizer", [MID_RISE, MID_TREAD])
@pytest.mark.parametrize("bits", range(2, 9))
def test_bits_are_found_again(quantizer, bits):
    W = np.random.default_rng(bits).laplace(size=(6, 200))
    worth = quantized_esn(W, bits, quantizer)
    for factor in (0.9, 1.0, 1.1):
        assert bits_for(W, factor * worth.counted, quantizer) == (bits, worth)


def test_targets_out_of_reach_get_the_nearest():
    W = np.random.default_rng(0).normal(size=(4, 100))
    assert bits_for(W, 1e-9)[0] == 1
    assert bits_for(W, 1e12)[0] == 8
    assert bits_for(W, 1e-9, MID_TREAD)[0] == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 1e5))
def test_no_other_bits_are_nearer(seed, each):
    W = np.random.default_rng(seed).normal(size=(3, 40))
    target = each * W.size
    worth = bits_for(W, target)[1]
    away = abs(np.log(worth.counted / target))
    assert all(away <= abs(np.log(quantized_esn(W, b).counted / target)) for b in range(1, 9))
