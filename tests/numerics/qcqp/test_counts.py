"""Over counts: tables, bounds, elimination, prices, integer programs; each against all there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.numerics.qcqp.counts import best_counts
from onnx_esn.numerics.qcqp.dual import descend, priced
from onnx_esn.numerics.qcqp.elimination import maximise, plan_elimination
from onnx_esn.numerics.qcqp.kinds import find_kinds
from onnx_esn.numerics.qcqp.ranking import order_of
from onnx_esn.numerics.qcqp.spectral import spectral
from onnx_esn.numerics.qcqp.tables import bounding, entrywise, find_edges, ranked, split
from tests.numerics.qcqp.instances import is_feasible, random_instance, residual

SEEDS = st.integers(0, 2**31)


def all_choices(n):
    return np.array(list(itertools.product((False, True), repeat=n)))


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_costs_and_widths_depend_on_counts_alone(seed):
    instance = random_instance(seed, most=9)
    kinds = find_kinds(instance)
    for x in all_choices(instance.size):
        k = kinds.counts(x)
        for budget, cost in zip(instance.budgets, kinds.costs, strict=True):
            assert cost.of(k) == pytest.approx(budget.cost(x), rel=1e-12, abs=1e-12)
        assert kinds.fits(k) == instance.allowed(x)
        assert instance.feasible(x) == is_feasible(instance, x)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_ranked_tables_say_what_the_first_of_each_kind_are_worth(seed):
    instance = random_instance(seed)
    kinds = find_kinds(instance)
    rng = np.random.default_rng(seed)
    order = order_of(instance, kinds, rng.random(instance.size) < 0.5)
    tables = ranked(find_edges(instance, kinds), order)
    for _ in range(5):
        k = np.array([rng.integers(0, n + 1) for n in kinds.sizes])
        x = np.zeros(instance.size, bool)
        for members, places, n in zip(kinds.members, order, k, strict=True):
            x[members[places[:n]]] = True
        assert tables.of(k) == pytest.approx(instance.objective(x), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_bounds_hold_for_every_choice(seed):
    instance = random_instance(seed, most=9)
    kinds = find_kinds(instance)
    edges = find_edges(instance, kinds)
    share = np.random.default_rng(seed).random(len(kinds))
    tables = [bounding(edges, spectral(edges, kinds, share)), entrywise(edges)]
    for x in all_choices(instance.size):
        k, value = kinds.counts(x), instance.objective(x)
        assert all(t.of(k) >= value * (1 - 1e-9) for t in tables)


@pytest.mark.parametrize("seed", range(3))
def test_spectral_weights_dominate_what_the_means_leave(seed):
    instance = residual(depth=3, width=8, seed=seed)
    kinds = find_kinds(instance)
    edges = find_edges(instance, kinds)
    share = np.full(len(kinds), 2.0)
    d = spectral(edges, kinds, share)
    n = instance.size
    N = np.zeros((n, n))
    for (a, b), E in edges.between.items():
        assert a != b
        N[np.ix_(kinds.members[a], kinds.members[b])] = split(E)[3] / 2
    least = np.linalg.eigvalsh(np.diag(d[kinds.of]) - N - N.T)[0]
    assert -1e-9 < least < 0.05 * d.max()  # valid, and no larger than need be


def random_tables(rng, sizes, pairs):
    unary = [rng.normal(size=n) for n in sizes]
    return unary, {(a, b): rng.normal(size=(sizes[a], sizes[b])) for a, b in pairs}


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([1 << 20, 20, 6]))
def test_elimination_against_all_values(seed, most):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, int(rng.integers(1, 6))).tolist()
    pairs = [p for p in itertools.combinations(range(len(sizes)), 2) if rng.random() < 0.6]
    unary, tables = random_tables(rng, sizes, pairs)

    def total(k):
        return sum(u[n] for u, n in zip(unary, k, strict=True)) + sum(
            t[k[a], k[b]] for (a, b), t in tables.items()
        )

    best = max(total(k) for k in itertools.product(*map(range, sizes)))
    order = plan_elimination(sizes, pairs, most)
    value, at = maximise(order, unary, tables)
    if order.exact:
        assert value == pytest.approx(best)
        assert total(at) == pytest.approx(best)
    assert value >= best - 1e-9
    assert total(at) <= best + 1e-9
    assert order.exact or most < 1 << 20


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([2, 3, 65]))
def test_prices_bound_counts_whatever_the_levels(seed, levels):
    instance = random_instance(seed)
    kinds = find_kinds(instance)
    edges = find_edges(instance, kinds)
    tables = ranked(edges, order_of(instance, kinds, np.ones(instance.size, bool)))
    within = [
        k
        for k in map(np.array, itertools.product(*(range(n + 1) for n in kinds.sizes)))
        if kinds.fits(k) and all(c.of(k) <= c.limit for c in kinds.costs)
    ]
    bound, _ = descend(priced(tables, kinds, bound=True, levels=(levels,)), lambda: False)
    assert all(tables.of(k) <= bound * (1 + 1e-9) for k in within)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_integer_programs_against_all_counts_of_the_windows(seed):
    instance = random_instance(seed)
    kinds = find_kinds(instance)
    tables = ranked(
        find_edges(instance, kinds), order_of(instance, kinds, np.ones(instance.size, bool))
    )
    rng = np.random.default_rng(seed)
    windows = []
    for n in kinds.sizes:
        some = np.flatnonzero(rng.random(n + 1) < 0.7)
        windows.append(some if some.size else np.array([n]))
    # Widths of one kind are the business of whoever makes the windows.
    windows = [
        w[ok] if (ok := kinds.allowed[a][w]).any() else np.array([kinds.sizes[a]])
        for a, w in enumerate(windows)
    ]
    within = [
        tables.of(k)
        for k in map(np.array, itertools.product(*windows))
        if kinds.fits(k) and all(c.of(k) <= c.limit for c in kinds.costs)
    ]
    found = best_counts(tables, kinds, windows, 30)
    if not within:
        assert found is None
        return
    assert found is not None
    assert all(n in w for n, w in zip(found, windows, strict=True))
    assert tables.of(found) == pytest.approx(max(within), rel=1e-6)
