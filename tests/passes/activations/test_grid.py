"""The grid of an activation covers its range, holds zero exactly and stays below a Clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.formats.activations_grid import KINDS, activation_grid

numbers = st.floats(-(2.0**99), 2.0**99, width=32)


def levels(grid, kind):
    return grid.scale * (np.array([kind.low, kind.high], dtype=np.float64) - grid.zero)


@pytest.mark.parametrize("name", sorted(KINDS))
@given(numbers, numbers)
def test_the_range_is_covered_to_one_step(name, a, b):
    kind, low, high = KINDS[name], min(a, b), max(a, b)
    grid = activation_grid(low, high, kind)
    assert kind.low <= grid.zero <= kind.high
    assert grid.scale == np.float32(grid.scale) > 0
    least, most = levels(grid, kind)
    assert least <= min(low, 0) + grid.scale * 0.5001 or low > 0
    assert most >= max(high, 0) - grid.scale * 0.5001
    widest = max(high, 0) - min(low, 0)
    if not kind.symmetric and widest > 1e-30:
        assert (most - least) <= widest * (1 + 1e-6)


@pytest.mark.parametrize("name", ["int8", "uint8"])
@given(st.floats(2.0**-66, 2.0**66, width=32))
def test_a_range_from_zero_never_exceeds_its_end(name, high):
    kind = KINDS[name]
    grid = activation_grid(0.0, high, kind)
    assert grid.zero == kind.low
    assert np.float32(255) * np.float32(grid.scale) <= np.float32(high)
    assert levels(grid, kind)[1] >= high * (1 - 1e-6)


@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-45])
def test_a_tensor_of_zeros_has_a_scale(name, value):
    kind = KINDS[name]
    grid = activation_grid(value, value, kind)
    assert grid.scale > 0
    assert kind.low <= grid.zero <= kind.high


def test_sixteen_bits_are_symmetric():
    grid = activation_grid(-1.0, 3.0, KINDS["int16"])
    assert grid.zero == 0
    assert grid.scale == pytest.approx(3 / 32767)
    scale, zero = grid.arrays(KINDS["int16"])
    assert (scale.dtype, scale.shape, zero.dtype, zero.shape) == ("float32", (), "int16", ())
