"""Shifted grids: written, rounded, read back; and floats that are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.numerics.esn import filter_bits
from onnx_esn.numerics.grid import detect_grid
from onnx_esn.numerics.shifted_grid import (
    PARTS,
    ShiftedGrid,
    as_shifted,
    detect_shifted,
    shifted_grid,
    shifted_values,
)

SINGLE, DOUBLE = 2.0**-23, 2.0**-52
TYPES = {SINGLE: np.float32, DOUBLE: np.float64}


def drawn(seed, shape, bits, far=1.0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, shape) - 2 ** (bits - 1) + 0.5
    step = np.exp(rng.standard_normal(shape[0])).astype(np.float32).astype(float)
    return codes, step, rng.normal(size=shape[0]) * step * far


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 8),
    st.integers(1, 12),
    st.integers(9, 60),
    st.sampled_from([SINGLE, DOUBLE]),
    st.sampled_from([0.1, 1.0, 20.0]),
)
def test_what_is_written_is_read(seed, bits, M, K, eps, far):
    codes, step, shift = drawn(seed, (M, K), bits, far)
    grid = shifted_grid(codes, step, shift)
    values = shifted_values(grid)
    # The shift moves by no more than a part of the step, the codes stay where they were.
    unit = np.maximum(grid.step, 1e-300)
    assert (
        np.abs(values - (step[:, None] * codes + shift[:, None])) <= unit[:, None] / PARTS
    ).all()
    found = detect_shifted(values.astype(TYPES[eps]), eps)
    assert found is not None
    np.testing.assert_array_equal(found.codes, grid.codes)
    np.testing.assert_allclose(
        shifted_values(found), values, rtol=0, atol=2 * eps * np.abs(values).max()
    )


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_offsets_and_steps_are_read_too(bits):
    codes, step, shift = drawn(bits, (6, 80), bits)
    grid = shifted_grid(codes, step, shift)
    found = detect_shifted(shifted_values(grid).astype(np.float32), SINGLE)
    np.testing.assert_array_equal(found.offset, grid.offset)
    np.testing.assert_allclose(found.step, grid.step, rtol=2 * SINGLE)
    assert (filter_bits(found.codes) == bits).all()


def test_shifted_filters_lie_on_no_plain_grid():
    for seed in range(50):
        codes, step, shift = drawn(seed, (1, 20), 1 + seed % 4)
        values = shifted_values(shifted_grid(codes, step, shift)).astype(np.float32)
        assert detect_grid(values, SINGLE) is None


def test_codes_take_the_fewest_bits():
    # Three levels, all above 0: 2 bits once they are moved to the middle; every second: the same.
    for codes in ([[3.5, 4.5, 5.5, 5.5]], [[2.5, 4.5, 6.5, 6.5]]):
        grid = shifted_grid(codes, [1.0], [0.3])
        assert grid.codes.tolist() == [[-1.5, -0.5, 0.5, 0.5]]
    assert filter_bits(grid.codes) == [2]
    assert grid.step == [2.0]


def test_equal_weights_are_a_sign():
    grid = shifted_grid([[0.5] * 3, [0.0] * 3, [0.0] * 3], [0.0, 0.0, 1.0], [-0.3, 0.0, 0.0])
    assert grid.codes.tolist() == [[-0.5] * 3, [0.0] * 3, [0.0] * 3]
    assert grid.step.tolist() == [0.6, 0.0, 0.0]
    assert not grid.offset.any()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.booleans())
def test_plain_filters_are_read_as_shifted_by_whole_steps(seed, bits, one_side):
    codes, step, _ = drawn(seed, (4, 30), bits)
    codes = np.abs(codes) if one_side else codes
    grid = as_shifted(codes, step)
    np.testing.assert_allclose(shifted_values(grid), step[:, None] * codes, rtol=1e-12)
    found = detect_shifted(shifted_values(grid), DOUBLE)
    np.testing.assert_array_equal(found.codes, grid.codes)
    assert (filter_bits(grid.codes) <= filter_bits(codes)).all()


def test_zeros_stay_zeros():
    grid = as_shifted(np.array([[0.0, 0.0], [0.5, -0.5]]), np.array([0.0, 1.0]))
    assert grid.codes.tolist() == [[0.0, 0.0], [0.5, -0.5]]
    assert shifted_values(grid).tolist() == [[0.0, 0.0], [0.5, -0.5]]


@pytest.mark.parametrize("shape", [(64, 1), (64, 2), (32, 3), (16, 4), (8, 9), (4, 27), (1, 500)])
@pytest.mark.parametrize("eps", [SINGLE, DOUBLE])
def test_floats_are_not_called_shifted(shape, eps):
    for seed in range(30):
        W = np.random.default_rng(seed).normal(size=shape).astype(TYPES[eps])
        assert detect_shifted(W, eps) is None


def test_rows_that_are_no_numbers_are_none():
    codes, step, shift = drawn(0, (3, 40), 3)
    values = shifted_values(shifted_grid(codes, step, shift))
    for m, bad in ((0, np.nan), (2, np.inf)):
        W = values.copy()
        W[m, 7] = bad
        assert detect_shifted(W, DOUBLE) is None
    assert detect_shifted(np.zeros((0, 3)), DOUBLE) is None


def test_half_precision_is_never_read_as_shifted():
    codes, step, shift = drawn(0, (8, 60), 2)
    values = shifted_values(shifted_grid(codes, step, shift)).astype(np.float16)
    assert detect_shifted(values, 2.0**-10) is None


def test_one_filter_off_the_grid_is_enough():
    codes, step, shift = drawn(3, (8, 60), 2)
    values = shifted_values(ShiftedGrid(*shifted_grid(codes, step, shift)))
    values[5, 11] *= 1.001
    assert detect_shifted(values.astype(np.float32), SINGLE) is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_scaled_filters_keep_their_codes(seed, bits):
    """Recalibration scales filters of stored weights, which rounds them once more."""
    codes, step, shift = drawn(seed, (5, 40), bits)
    grid = shifted_grid(codes, step, shift)
    factor = np.exp(np.random.default_rng(seed + 1).normal(size=5))[:, None].astype(np.float32)
    scaled = factor * shifted_values(grid).astype(np.float32)
    found = detect_shifted(scaled, SINGLE)
    np.testing.assert_array_equal(found.codes, grid.codes)
