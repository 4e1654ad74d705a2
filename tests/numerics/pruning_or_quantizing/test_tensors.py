"""The paper's grid and magnitude pruning on real numbers, against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.pruning_or_quantizing import integer_grid
from onnx_esn.numerics.pruning_or_quantizing.integer_grid import IntegerGrid
from onnx_esn.numerics.pruning_or_quantizing.magnitude import (
    decibels,
    excess_kurtosis,
    kept_count,
    kept_share_with_mask,
    pruning_error,
)


def rounded_error(w, step, bits):
    half = 1 << (bits - 1)
    codes = np.clip(np.rint(w / step), -half, half - 1)
    return float(np.square(w - step * codes).sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([1, 2, 3, 4, 8]))
def test_no_step_beats_the_sweep(seed, count, bits):
    rng = np.random.default_rng(seed)
    w = rng.standard_t(2.5, count) * 0.03
    grid = IntegerGrid(w)
    step = grid.optimal_step(bits)
    found = grid.error(step, bits)
    assert found == pytest.approx(
        rounded_error(w, step, bits) if step else grid.energy, rel=1e-9, abs=1e-12 * grid.energy
    )
    steps = np.abs(w).max() * np.geomspace(1e-3, 3, 3000)
    least = min(grid.energy, *(rounded_error(w, s, bits) for s in steps))
    assert found <= least * (1 + 1e-9) + 1e-12 * grid.energy


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["normal", "heavy", "positive"])
def test_the_search_comes_within_a_hundredth_of_the_sweep(monkeypatch, bits, kind):
    rng = np.random.default_rng(bits)
    w = rng.normal(size=4000) if kind != "heavy" else rng.standard_t(2.5, 4000)
    w = np.abs(w) if kind == "positive" else w
    grid = IntegerGrid(w)
    exact = grid.error(grid.optimal_step(bits), bits)
    monkeypatch.setattr(integer_grid, "_EXACT", 0)
    searched = grid.error(grid.optimal_step(bits), bits)
    assert exact * (1 - 1e-9) <= searched <= 1.01 * exact


def test_the_range_has_one_negative_level_more():
    w = np.array([-2.0, -1.0, 0.0, 1.0])
    grid = IntegerGrid(w)
    assert grid.optimal_step(2) == 1.0
    assert grid.error(1.0, 2) == 0.0
    mirrored = IntegerGrid(-w)
    assert mirrored.error(mirrored.optimal_step(2), 2) > 0.1


@pytest.mark.parametrize("w", [np.zeros(5), np.zeros(0), np.ones(4)])
def test_one_bit_has_no_positive_level(w):
    assert IntegerGrid(w).optimal_step(1) == 0.0


def test_what_is_not_finite_is_refused():
    with pytest.raises(VerificationError, match="not finite"):
        IntegerGrid(np.array([1.0, np.nan]))


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(0, 40))
def test_pruning_keeps_the_largest(seed, count, kept):
    w = np.random.default_rng(seed).normal(size=count)
    expected = np.square(np.sort(np.abs(w))[: max(count - kept, 0)]).sum()
    assert pruning_error(w, kept) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_as_many_are_kept_as_are_paid_for():
    assert [kept_count(16, n) for n in (8, 4, 3, 2)] == [8, 4, 3, 2]
    assert kept_count(9, 4) == 3  # 2.25: pruning gets the benefit
    assert kept_count(0, 4) == 0
    assert kept_count(3, 16) == 3


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_a_mask_that_is_paid_for_leaves_fewer(bits):
    share = kept_share_with_mask(bits)
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    assert 16 * share + entropy == pytest.approx(bits, abs=1e-9)
    assert share < bits / 16


def test_decibels_at_the_ends():
    assert decibels(100.0, 1.0) == pytest.approx(20.0)
    assert decibels(1.0, 0.0) == math.inf
    assert math.isnan(decibels(0.0, 0.0))


def test_kurtosis():
    rng = np.random.default_rng(0)
    assert excess_kurtosis(rng.normal(size=200_000)) == pytest.approx(0.0, abs=0.05)
    assert excess_kurtosis(rng.uniform(size=200_000)) == pytest.approx(-1.2, abs=0.02)
    assert excess_kurtosis([1.0, -1.0, 1.0, -1.0]) == pytest.approx(-2.0)
    assert math.isnan(excess_kurtosis(np.full(4, 0.3)))
    assert excess_kurtosis(1e-200 * rng.normal(size=1000)) == pytest.approx(0.0, abs=0.5)
