"""The allocation rule of ACIQ against the formula itself, tried at every level that matters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.errors import BudgetError
from onnx_esn.numerics.aciq_allocation import RangedLayer, allocate_by_range


def rule(alpha, t, least, most):
    """M_i = round(log2(B·α^(2/3)/Σα^(2/3))) with B = n·2^t, halves up; within the limits."""
    found = np.zeros(len(alpha), int)
    live = [i for i, a in enumerate(alpha) if a > 0]
    total = sum(alpha[i] ** (2 / 3) for i in live)
    for i in live:
        levels = len(live) * 2.0**t * alpha[i] ** (2 / 3) / total
        bits = min(int(np.floor(np.log2(levels) + 0.5)), most)
        found[i] = bits if bits >= least else 0
    if live:
        widest = max(live, key=lambda i: (alpha[i], -i))
        found[widest] = max(found[widest], least)
    return found


def brute_force(layers, budget, least):
    """The best of a fine grid of t."""
    best = None
    for t in np.arange(-12, 24, 1 / 512) + 1 / 1024:
        bits = [rule(x.ranges, t, least, x.most_bits) for x in layers]
        cost = sum(float((b * x.cost).sum()) for b, x in zip(bits, layers, strict=True))
        if cost <= budget:
            best = bits
    return best


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 3.0]), min_size=1, max_size=4),
        min_size=1,
        max_size=3,
    ),
    st.floats(0.2, 9),
    st.sampled_from([1, 2]),
    st.sampled_from([4, 7, 8]),
)
def test_against_brute_force(alphas, mean, least, most):
    layers = [
        RangedLayer(np.array(a), np.full(len(a), float(3 + 2 * i)), most)
        for i, a in enumerate(alphas)
    ]
    budget = mean * sum(float(x.cost.sum()) for x in layers)
    expected = brute_force(layers, budget, least)
    if expected is None:
        with pytest.raises(BudgetError):
            allocate_by_range(layers, budget, least_bits=least)
        return
    found = allocate_by_range(layers, budget, least_bits=least)
    assert [x.tolist() for x in found] == [x.tolist() for x in expected]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(1, 8), st.integers(2, 40))
def test_budgets_are_met_from_below(seed, mean, filters):
    rng = np.random.default_rng(seed)
    layers = [
        RangedLayer(rng.exponential(size=filters), rng.integers(1, 9, filters).astype(float))
        for _ in range(3)
    ]
    whole = sum(float(x.cost.sum()) for x in layers)
    found = allocate_by_range(layers, mean * whole)
    cost = sum(float((b * x.cost).sum()) for b, x in zip(found, layers, strict=True))
    assert cost <= mean * whole
    # Filters are upgraded one at a time, unless all have the most there is.
    dearest = max(float(x.cost.max()) for x in layers)
    assert cost > mean * whole - dearest or all((b == 8).all() for b in found)
    for layer, bits in zip(layers, found, strict=True):
        order = np.argsort(layer.ranges)
        assert (np.diff(bits[order]) >= 0).all()


def test_equal_filters_get_equal_bits():
    (bits,) = allocate_by_range([RangedLayer(np.ones(7), np.ones(7))], 27.9)
    assert bits.tolist() == [3] * 7


def test_eight_times_the_range_gets_two_bits_more():
    (bits,) = allocate_by_range([RangedLayer(np.array([8.0, 1.0]), np.ones(2))], 8.0)
    assert bits.tolist() == [5, 3]


def test_nothing_to_quantize_costs_nothing():
    assert allocate_by_range([], 0.0) == []
    (bits,) = allocate_by_range([RangedLayer(np.zeros(3), np.ones(3))], 0.0)
    assert bits.tolist() == [0, 0, 0]


def test_impossible_budgets_are_refused():
    with pytest.raises(BudgetError, match="one filter of each layer at 2 bits costs 6"):
        allocate_by_range([RangedLayer(np.ones(4), np.full(4, 3.0))], 5.0, least_bits=2)
