import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.errors import BudgetError, VerificationError
from onnx_esn.numerics.bit_allocation import allocate_bits
from tests.oracles import numerics as oracle


def instance(seed, F, B=9, linear=True):
    rng = np.random.default_rng(seed)
    D = np.sort(rng.random((F, B)) ** 4, axis=1)[:, ::-1] * rng.integers(1, 50, (F, 1))
    if linear:
        C = np.arange(B) * rng.integers(1, 30, (F, 1)).astype(float)
    else:
        C = np.sort(rng.integers(0, 40, (F, B)), axis=1).astype(float)
    return np.ascontiguousarray(D), C


def totals(D, C, b):
    rows = np.arange(len(b))
    return D[rows, b].sum(), C[rows, b].sum()


def largest_hull_edge(D, C):
    """The largest saving of one edge of a lower convex hull, by the definition of a hull."""
    largest = 0.0
    for d, c in zip(D, C, strict=True):
        at = min(range(len(d)), key=lambda i: (c[i], d[i]))
        while True:
            ahead = [i for i in range(len(d)) if c[i] > c[at] and d[i] < d[at]]
            if not ahead:
                break
            to = max(ahead, key=lambda i: ((d[at] - d[i]) / (c[i] - c[at]), c[i]))
            largest, at = max(largest, d[at] - d[to]), to
    return largest


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 1.0), st.booleans())
def test_the_gap_to_brute_force_is_at_most_one_hull_edge(seed, share, linear):
    D, C = instance(seed, 4, B=5, linear=linear)
    budget = C.min(axis=1).sum() + share * (C.max(axis=1) - C.min(axis=1)).sum()
    distortion, cost = totals(D, C, allocate_bits(D, C, budget))
    assert cost <= budget
    best = oracle.best_allocation(D, C, budget)
    assert best - 1e-9 <= distortion <= best + largest_hull_edge(D, C) + 1e-9


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
def test_the_gap_to_the_relaxation_is_at_most_one_hull_edge(share):
    D, C = instance(7, 60)
    budget = share * C[:, -1].sum()
    distortion, cost = totals(D, C, allocate_bits(D, C, budget))
    relaxed = oracle.milp_allocation(D, C, budget, relaxed=True)
    exact = oracle.milp_allocation(D, C, budget)
    assert cost <= budget
    assert relaxed - 1e-6 <= exact <= distortion + 1e-6
    assert distortion <= relaxed + largest_hull_edge(D, C)
    assert distortion <= exact * 1.02  # what is left over is spent well


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 1.2), st.booleans())
def test_no_single_upgrade_is_left_that_fits(seed, share, linear):
    D, C = instance(seed, 30, linear=linear)
    least, most = C.min(axis=1).sum(), C.max(axis=1).sum()
    budget = least + share * (most - least)
    b = allocate_bits(D, C, budget)
    _, cost = totals(D, C, b)
    assert cost <= budget
    for f in range(len(b)):
        for to in range(D.shape[1]):
            extra = C[f, to] - C[f, b[f]]
            assert not (0 < extra <= budget - cost and D[f, to] < D[f, b[f]])


def test_the_whole_budget_buys_all_bits_and_none_buys_none():
    D, C = instance(1, 20)
    assert (allocate_bits(D, C, C[:, 8].sum()) == D.argmin(axis=1)).all()
    assert (allocate_bits(D, C, 0.0) == 0).all()


def test_bits_that_save_nothing_are_not_spent():
    D = np.array([[4.0, 1, 1, 1, 1, 1, 1, 1, 1], [0.0] * 9])
    C = np.tile(np.arange(9.0), (2, 1))
    assert allocate_bits(D, C, 100.0).tolist() == [1, 0]


def test_free_filters_take_their_best_bits():
    D = np.array([[8.0, 4, 2, 1, 0.5, 0.25, 0.1, 0.1, 0.1]])
    assert allocate_bits(D, np.zeros((1, 9)), 0.0).tolist() == [6]


def test_minimum_bits_hold_but_for_filters_of_zeros():
    D, C = instance(2, 20)
    D[5] = 0
    b = allocate_bits(D, C, 3.0 * C[:, 1].sum(), minimum_bits=2)
    assert b[5] == 0
    assert (np.delete(b, 5) >= 2).all()
    each = np.arange(20) % 4
    b = allocate_bits(D, C, 3.0 * C[:, 1].sum(), minimum_bits=each)
    assert (np.delete(b >= each, 5)).all()
    small_D, small_C = instance(3, 4, B=5)
    distortion, _ = totals(small_D, small_C, allocate_bits(small_D, small_C, 200, minimum_bits=1))
    best = oracle.best_allocation(small_D, small_C, 200, minimum=1)
    assert distortion <= best + largest_hull_edge(small_D[:, 1:], small_C[:, 1:])


def test_an_unreachable_budget_says_what_the_cheapest_costs():
    D, C = instance(4, 10)
    with pytest.raises(BudgetError, match=f"cheapest allocation costs {2 * C[:, 1].sum():.6g}"):
        allocate_bits(D, C, C[:, 1].sum(), minimum_bits=2)
    with pytest.raises(BudgetError):
        allocate_bits(D, C, -1.0)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="equal"):
        allocate_bits(np.ones((3, 9)), np.ones((2, 9)), 1.0)
    with pytest.raises(ValueError, match="below 9"):
        allocate_bits(np.ones((3, 9)), np.ones((3, 9)), 100.0, minimum_bits=9)
    with pytest.raises(VerificationError, match="not finite"):
        allocate_bits(np.full((1, 9), np.nan), np.ones((1, 9)), 1.0)
    assert allocate_bits(np.ones((0, 9)), np.ones((0, 9)), 0.0).size == 0
