"""Bound ≤ best of all masks ≤ what was found; the search finds the best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.numerics.pruning_or_quantizing.mask_search import best_mask
from onnx_esn.numerics.pruning_or_quantizing.masks import (
    greedy_masks,
    greedy_order,
    magnitude_masks,
    mask_error,
    refit,
)
from onnx_esn.numerics.pruning_or_quantizing.spectral import least_eigenvalue, pruning_bound

from .problems import every_mask_error, moments, problems


@settings(max_examples=120, deadline=None)
@given(problems(8), st.data())
def test_the_search_finds_the_best_of_all_masks(problem, data):
    P, w = problem
    kept = data.draw(st.integers(0, w.size))
    best = every_mask_error(P, w, kept)
    found = best_mask(P, w, kept)
    slack = 1e-8 * float(w @ P @ w) + 1e-12
    assert found.keep.sum() == kept
    assert found.error == pytest.approx(best, abs=slack)
    assert found.bound == found.error
    assert mask_error(P, w, found.keep) == pytest.approx(found.error, abs=slack)


@settings(max_examples=120, deadline=None)
@given(problems(7), st.data())
def test_no_mask_is_below_the_bounds(problem, data):
    P, w = problem
    kept = data.draw(st.integers(0, w.size))
    best = every_mask_error(P, w, kept)
    slack = 1e-9 * float(w @ P @ w) + 1e-12
    parts = least_eigenvalue(P) * P.diagonal() * np.square(w)
    assert pruning_bound(parts, kept) <= best + slack
    order, added = greedy_order(np.linalg.inv(P), w)
    for keep in (
        magnitude_masks(w[None], kept)[0],
        greedy_masks(order[None], added[None], kept)[0],
    ):
        assert keep.sum() == kept
        assert mask_error(P, w, keep) >= best - slack


@pytest.mark.parametrize("nodes", [0, 1, 3, 10, 40])
def test_cut_short_the_search_still_bounds(nodes):
    rng = np.random.default_rng(nodes)
    for _ in range(8):
        P, w = moments(rng, 10, 1.0), rng.normal(size=10)
        best = every_mask_error(P, w, 4)
        found = best_mask(P, w, 4, most_nodes=nodes)
        assert found.bound <= best * (1 + 1e-9) <= found.error * (1 + 2e-9)
        assert found.nodes <= nodes


def test_the_search_leaves_most_masks_unseen():
    rng = np.random.default_rng(1)
    looked = [best_mask(moments(rng, 16), rng.normal(size=16), 8).nodes for _ in range(5)]
    assert max(looked) < 12870 / 4


@pytest.mark.parametrize("d", [1, 5, 70])
def test_what_greedy_elimination_adds_is_the_error_of_its_masks(d):
    rng = np.random.default_rng(d)
    P, w = moments(rng, d), rng.normal(size=d)
    order, added = greedy_order(np.linalg.inv(P), w)
    assert sorted(order) == list(range(d))
    keep = np.ones(d, np.bool_)
    for n in range(d):
        keep[order[n]] = False
        if n % 7 == 0 or n == d - 1:
            assert added[: n + 1].sum() == pytest.approx(mask_error(P, w, keep), rel=1e-6)


def test_greedy_takes_the_cheapest_next():
    rng = np.random.default_rng(2)
    P, w = moments(rng, 6), rng.normal(size=6)
    order, added = greedy_order(np.linalg.inv(P), w)
    single = [mask_error(P, w, np.arange(6) != i) for i in range(6)]
    assert order[0] == int(np.argmin(single))
    assert added[0] == pytest.approx(min(single))


def test_masks_share_their_weights_among_filters():
    W = np.array([[5.0, 4.0, 3.0], [0.1, 0.2, 0.3]])
    assert magnitude_masks(W, 3).sum(axis=1).tolist() == [3, 0]
    orders = [greedy_order(np.eye(3), w) for w in W]
    order, added = (np.stack(x) for x in zip(*orders, strict=True))
    assert greedy_masks(order, added, 4).sum(axis=1).tolist() == [3, 1]


def test_refit_stays_near_where_inputs_are_dead():
    H = np.zeros((3, 3))
    w = np.array([1.0, 2.0, 3.0])
    assert refit(H, w, np.array([True, False, True])).tolist() == [1.0, 0.0, 3.0]
    assert mask_error(H, w, np.zeros(3, np.bool_)) == 0.0
