"""The best choice of channels: against all choices, against greedy, against its bound."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.errors import BudgetError
from onnx_esn.numerics.qcqp import solve as solving
from onnx_esn.numerics.qcqp.exhaustive import exhaustive
from onnx_esn.numerics.qcqp.greedy import greedy
from onnx_esn.numerics.qcqp.instance import Budget, Term, Width
from onnx_esn.numerics.qcqp.kinds import find_kinds
from onnx_esn.numerics.qcqp.solve import solve, without_inactive
from tests.numerics.qcqp.instances import (
    brute_force,
    count,
    is_feasible,
    random_instance,
    residual,
    value_of,
)


@pytest.fixture
def searching(monkeypatch):
    """No instance is so small that all choices are tried."""
    monkeypatch.setattr(solving, "MOST_CLASSES", 0)


@pytest.mark.parametrize("seed", range(25))
def test_small_instances_are_solved_exactly(seed):
    instance = random_instance(seed, most=9)
    best = brute_force(instance)
    if best is None:
        with pytest.raises(BudgetError):
            solve(instance)
        return
    found = solve(instance)
    assert found.optimal
    assert found.in_time
    assert is_feasible(instance, found.keep)
    assert value_of(instance, found.keep) == pytest.approx(best, rel=1e-9)
    assert found.objective == found.bound == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 2, 7, 127, 1])
def test_the_search_finds_the_best_of_all_choices(searching, seed):
    instance = random_instance(seed)
    best = exhaustive(instance)
    if best is None:
        with pytest.raises(BudgetError):
            solve(instance)
        return
    assert solve(instance).objective == pytest.approx(instance.objective(best), rel=1e-9)


@pytest.mark.parametrize("of", [0.7, 0.5, 0.3])
def test_the_search_finds_the_best_of_a_residual_stream(searching, of):
    for seed in range(3):
        instance = residual(of=of, seed=seed)
        best = instance.objective(exhaustive(instance))
        found = solve(instance)
        assert found.objective == pytest.approx(best, rel=1e-9)
        assert found.bound >= best * (1 - 1e-9)
        assert instance.feasible(found.keep)


@settings(max_examples=25, deadline=None)
@given(st.integers(200, 2**31))
def test_no_choice_exceeds_the_bound(seed):
    instance = random_instance(seed, most=10)
    best = exhaustive(instance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solving, "MOST_CLASSES", 0)
        patch.setattr(solving, "_SHAKES", 4)
        try:
            found = solve(instance)
        except BudgetError:
            return
    assert best is not None
    assert instance.feasible(found.keep)
    assert found.objective == pytest.approx(value_of(instance, found.keep))
    assert found.objective <= instance.objective(best) * (1 + 1e-9)
    assert found.bound >= instance.objective(best) * (1 - 1e-9)


def test_greedy_is_never_better_and_sometimes_worse():
    results = []
    for seed in range(4):
        instance = residual(depth=3, width=6, of=0.3, seed=seed)
        results.append(solve(instance))
        baseline = greedy(instance, find_kinds(instance))
        assert results[-1].greedy == instance.objective(baseline)
    assert all(r.greedy <= r.objective <= r.bound for r in results)
    assert sum(r.greedy < r.objective for r in results) >= 2


def test_the_same_again_gives_the_same(searching):
    instance = residual(depth=4, width=6)
    first, second = solve(instance), solve(instance)
    assert first.in_time
    assert (first.keep == second.keep).all()
    assert (first.objective, first.bound) == (second.objective, second.bound)


def test_without_time_the_greedy_choice_is_left(searching):
    instance = residual(depth=6, width=8)
    found = solve(instance, seconds=1e-9)
    assert not found.in_time
    assert instance.feasible(found.keep)
    assert found.greedy <= found.objective <= found.bound


@pytest.mark.parametrize("of", [0.7, 0.5, 0.3])
def test_a_budget_is_used_up(of):
    instance = residual(depth=4, width=16, of=of)
    found = solve(instance)
    budget = instance.budgets[0]
    assert 0.97 * budget.limit < budget.cost(found.keep) <= budget.limit
    assert nothing_fits(instance, found.keep)


def nothing_fits(instance, x):
    """Whether each class that went costs more than what is left of a budget."""
    more = [np.where(np.arange(x.size) == c, True, x) for c in np.flatnonzero(~x)]
    return not any(instance.met(y) for y in more)


@pytest.mark.parametrize("of", [0.9, 0.75, 0.5])
def test_of_several_budgets_all_are_met_and_one_is_tight(of):
    first = residual(depth=3, width=8, of=0.6)
    stream = [Term(1.0, count(np.arange(8 * i, 8 * i + 8))) for i in range(4)]
    both = [*first.budgets, Budget("memory", 32 * of, stream)]
    instance = dataclasses.replace(first, budgets=both)
    found = solve(instance)
    used = [b.cost(found.keep) / b.limit for b in both]
    assert 0.95 < max(used) <= 1 + 1e-9
    assert nothing_fits(instance, found.keep)


@pytest.mark.parametrize("step", [2, 4])
def test_widths_come_in_steps(step):
    first = residual(depth=4, width=16, of=0.5)
    widths = [Width(w.count, 3.0, step) for w in first.widths]
    instance = dataclasses.replace(first, widths=widths)
    found = solve(instance)
    left = [w.count.of(found.keep) for w in widths]
    assert all(n == 16 or (n % step == 0 and n >= 3) for n in left)
    assert instance.met(found.keep)
    assert instance.budgets[0].cost(found.keep) > 0.9 * instance.budgets[0].limit


def test_a_budget_out_of_reach_is_named():
    instance = residual(depth=3, width=8, of=1e-4)
    with pytest.raises(BudgetError, match=r"0.0384 MACs cannot be reached .* 6 remain"):
        solve(instance)


def test_what_nothing_reads_goes_and_what_it_cost_is_used():
    first = residual(depth=2, width=10, of=0.5)
    idle = np.zeros(first.size, bool)
    found = solve(first)
    idle[[np.flatnonzero(found.keep)[-1]]] = True
    cleaned = without_inactive(first, found, lambda x: idle & x)
    assert not (idle & cleaned.keep).any()
    assert first.feasible(cleaned.keep)
    assert cleaned.objective == pytest.approx(value_of(first, cleaned.keep))
    assert cleaned.keep.sum() >= found.keep.sum()
