"""The range of least squared error, against trying them all on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.numerics.clipping import best_range, clipping_error


def naive_error(values, counts, low, high, steps):
    scale = (high - low) / steps
    zero = min(max(round(-low / scale), 0), steps)
    total = 0.0
    for x, n in zip(values, counts, strict=True):
        code = min(max(round(x / scale) + zero, 0), steps)
        total += n * (x - scale * (code - zero)) ** 2
    return total


@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(2, 8))
@settings(max_examples=40, deadline=None)
def test_the_error_is_that_of_the_equation(seed, bits):
    rng = np.random.default_rng(seed)
    values, counts = rng.normal(size=30), rng.integers(1, 9, 30).astype(float)
    low, high = -rng.uniform(0, 2), rng.uniform(0.1, 2)
    found = clipping_error(counts, values, np.array([low]), np.array([high]), 2**bits - 1)
    assert found[0] == pytest.approx(naive_error(values, counts, low, high, 2**bits - 1))


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_nothing_on_a_grid_of_ranges_is_much_better(bits, signed):
    rng = np.random.default_rng(bits)
    x = rng.standard_t(4, 4000)
    x = x if signed else np.maximum(x, 0)
    steps = 2**bits - 1
    ones = np.ones(x.size)
    low, high = best_range(ones, x, x.min(), x.max(), steps)
    assert x.min() <= low <= 0 <= high <= x.max()
    found = clipping_error(ones, x, np.array([low]), np.array([high]), steps)[0]
    highs = np.linspace(0.01, 1, 150) * x.max()
    lows = np.linspace(0, 1, 60) * x.min() if signed else np.zeros(1)
    tried = [clipping_error(ones, x, np.full_like(highs, a), highs, steps).min() for a in lows]
    assert found <= 1.03 * min(tried)


def test_ends_that_need_no_search():
    assert best_range([4], [0.0], 0.0, 0.0, 15) == (0.0, 0.0)
    low, high = best_range([1, 1], [1.0, 3.0], 1.0, 3.0, 255)  # 0 is held
    assert low == 0
    assert high == pytest.approx(3, rel=0.04)
    low, high = best_range([5, 1], [-1.0, 0.5], -1.0, 0.5, 254, symmetric=True)
    assert low == -high
