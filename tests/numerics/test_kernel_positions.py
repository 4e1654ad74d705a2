"""Positions and windows against plain loops and against every possible choice."""

import itertools
import math

import numpy as np
import pytest

from onnx_esn.numerics.kernel_positions import (
    Cut,
    Window,
    choose_windows,
    common_cut,
    position_importance,
    select_positions,
    windows,
)


def test_importance_by_loops():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(4, 3, 2, 3))  # filters, inputs, kernel
    wanted = np.zeros((4, 6))
    for j, i, a, b in itertools.product(range(4), range(3), range(2), range(3)):
        wanted[j, 3 * a + b] += abs(W[j, i, a, b])
    wanted /= math.sqrt((wanted**2).sum())
    np.testing.assert_allclose(position_importance(W.reshape(4, -1), 6), wanted)
    assert not position_importance(np.zeros((2, 8)), 4).any()


def naive_selection(importance, ratio):
    """One by one, the least of those that may go; of two equal ones the later."""
    kept = [np.ones(x.shape, bool) for x in importance]
    total = sum(x.size for x in importance)
    for _ in range(math.floor(ratio * total + 1e-9)):
        free = []
        for n, x in enumerate(importance):
            for j, p in itertools.product(*map(range, x.shape)):
                if kept[n][j, p] and p != x[j].argmax():
                    free.append((x[j, p], -n, -j, -p))
        if not free:
            break
        _, n, j, p = min(free)
        kept[-n][-j, -p] = False
    return kept


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ratio", [0, 0.3, 0.55, 0.99])
def test_selection_by_loops(seed, ratio):
    rng = np.random.default_rng(seed)
    importance = [rng.integers(0, 6, (m, p)) / 7.0 for m, p in ((3, 9), (5, 4), (1, 3))]
    for got, wanted in zip(
        select_positions(importance, ratio, "global"),
        naive_selection(importance, ratio),
        strict=True,
    ):
        np.testing.assert_array_equal(got, wanted)
    by_layer = select_positions(importance, ratio)
    for x, got in zip(importance, by_layer, strict=True):
        np.testing.assert_array_equal(got, naive_selection([x], ratio)[0])
        assert got.any(axis=1).all()  # no filter loses everything
        assert (~got).sum() <= ratio * x.size


def test_common_cut():
    kept = np.zeros((2, 4, 5), bool)
    kept[0, 1, 2] = kept[1, 2, 3] = True
    most = Cut((9, 9), (9, 9))
    assert common_cut(kept.reshape(2, 20), (4, 5), most) == Cut((1, 2), (1, 1))
    assert common_cut(kept.reshape(2, 20), (4, 5), Cut((0, 1), (1, 0))) == Cut((0, 1), (1, 0))
    assert not common_cut(np.ones((2, 20), bool), (4, 5), most)


@pytest.mark.parametrize("kernel", [(3,), (2, 3), (3, 3), (2, 2, 3)])
def test_windows_are_the_best_of_their_size(kernel):
    rng = np.random.default_rng(1)
    importance = rng.integers(0, 9, (4, math.prod(kernel))).astype(float)
    most = Cut(tuple(k - 1 for k in kernel), (1,) * len(kernel))
    total = importance.sum(axis=0).reshape(kernel)
    best = {}
    spans = [[(a, b) for a in range(k) for b in range(2) if a + b < k] for k in kernel]
    for ends in itertools.product(*spans):
        inside = np.zeros(kernel, bool)
        inside[tuple(slice(a, k - b) for k, (a, b) in zip(kernel, ends, strict=True))] = True
        best[inside.sum()] = min(best.get(inside.sum(), np.inf), total[~inside].sum())
    found = windows(importance, kernel, most)
    assert found[0] == Window(Cut((0,) * len(kernel), (0,) * len(kernel)), 0.0, 1.0)
    for window in found:
        size = math.prod(window.cut.left(kernel))
        assert window.share == size / math.prod(kernel)
        assert window.loss == pytest.approx(best[size])
    # What is missing is no better than something smaller.
    sizes = {math.prod(w.cut.left(kernel)): w.loss for w in found}
    for size, loss in best.items():
        assert any(s <= size and v <= loss for s, v in sizes.items())


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    options = []
    for _ in range(rng.integers(1, 5)):
        shares = np.sort(rng.choice([1 / 9, 2 / 9, 3 / 9, 4 / 9, 6 / 9], 3, replace=False))[::-1]
        losses = np.sort(rng.random(3))
        cut = Cut((0,), (0,))
        options.append([Window(cut, 0.0, 1.0)])
        options[-1] += [Window(cut, v, s) for v, s in zip(losses, shares, strict=True)]
    costs = [int(c) for c in rng.integers(1000, 10**9, len(options))]
    budget = sum(costs) * rng.uniform(0.1, 1.0)

    def cost(choice):
        return sum(c * w[i].share for c, w, i in zip(costs, options, choice, strict=True))

    def loss(choice):
        return sum(w[i].loss for w, i in zip(options, choice, strict=True))

    fitting = [c for c in itertools.product(*map(range, map(len, options))) if cost(c) <= budget]
    found = choose_windows(options, costs, budget)
    if not fitting:
        assert found is None
        return
    assert cost(found) <= budget
    assert loss(found) == pytest.approx(min(map(loss, fitting)), abs=1e-9)
