import itertools

import numpy as np
import pytest

from onnx_esn.errors import BudgetError
from onnx_esn.numerics.joint_allocation import LayerCost, WidthCurve, allocate


def falling(rng, M, B=9):
    noise = np.exp(0.3 * rng.standard_normal((M, B)))
    return rng.integers(1, 20) * rng.random((M, 1)) * 4.0 ** -np.arange(B) * noise


def curve(rng, ids, stays=0):
    steps = rng.random(len(ids)) ** 3 * rng.integers(1, 20)
    return WidthCurve(rng.permutation(ids), np.append(0, np.cumsum(steps)), stays)


def problem(seed, groups=2, classes=3, layers=3):
    """Layers that make a group each, or none; they read one, some of one, two, or are depthwise."""
    rng = np.random.default_rng(seed)
    ids = [np.arange(classes) + 100 * g for g in range(groups)]
    curves = [curve(rng, i) for i in ids]
    made = []
    for n in range(layers):
        if n < groups:
            filters = ids[n]
        elif rng.random() < 0.5:
            filters = np.full(rng.integers(1, 3), -1)
        else:
            filters = ids[rng.integers(groups)]
        before, one = ids[(n - 1) % groups], ids[rng.integers(groups)]
        kind = rng.random()
        if n == 0:
            inputs = np.full(3, -1)
        elif kind < 0.6:
            inputs = before
        elif kind < 0.8:
            inputs = np.append(one, -1)
        elif kind < 0.9:
            inputs = np.concatenate(ids)
        else:
            inputs = None
        unit = float(rng.integers(1, 6)) * (3 if inputs is None else 1)
        made.append(LayerCost(unit, filters, inputs, falling(rng, len(filters))))
    return made, curves


def state(layers, curves, gone):
    """Cost of one bit of one filter, and the filters left, of each layer: by the definition."""
    out = {int(c) for x, n in zip(curves, gone, strict=True) for c in x.order[:n]}
    for layer in layers:
        fan = 1 if layer.inputs is None else sum(int(c) not in out for c in layer.inputs)
        yield fan * layer.unit, [m for m, c in enumerate(layer.filters) if int(c) not in out]


def full_cost(layers, bits=8):
    return sum(rate * len(f) * bits for rate, f in state(layers, [], []))


def account(layers, curves, result, scale=1.0):
    """Cost and loss of an allocation, by the definition."""
    cost = 0.0
    loss = sum(scale * x.loss[n] for x, n in zip(curves, result.gone, strict=True))
    for layer, b, (rate, kept) in zip(
        layers, result.bits, state(layers, curves, result.gone), strict=True
    ):
        assert (np.delete(b, kept) == 0).all()
        cost += rate * b.sum()
        loss += layer.distortion[kept, b[kept]].sum()
    return cost, loss


def least_loss(layers, curves, budget, bits=range(9)):
    """The optimum: all widths, and for each the bits by dynamic programming over whole costs."""
    best = np.inf
    for gone in itertools.product(*(range(len(x.order) + x.stays) for x in curves)):
        within = np.zeros(int(budget) + 1)
        for layer, (rate, kept) in zip(layers, state(layers, curves, gone), strict=True):
            for f in kept:
                new = np.full_like(within, np.inf)
                for b in bits:
                    c = int(rate * b)
                    if c <= budget:
                        option = within[: len(within) - c] + layer.distortion[f, b]
                        new[c:] = np.minimum(new[c:], option)
                within = new
        loss = sum(x.loss[n] for x, n in zip(curves, gone, strict=True))
        best = min(best, loss + within[-1])
    return best


def gaps(seeds, share, bits=None, **sizes):
    found = []
    for seed in seeds:
        layers, curves = problem(seed, **sizes)
        budget = int(share * full_cost(layers, bits or 8))
        best = least_loss(layers, curves, budget, range(9) if bits is None else [bits])
        if np.isinf(best):
            with pytest.raises(BudgetError):
                allocate(layers, curves, budget, bits=bits)
            continue
        result = allocate(layers, curves, budget, bits=bits)
        assert account(layers, curves, result) == pytest.approx((result.cost, result.loss))
        assert result.cost <= budget
        assert result.loss >= best - 1e-9
        found.append(result.loss / best - 1)
    return np.array(found)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_on_tiny_problems_the_loss_is_near_the_optimum(share):
    found = gaps(range(40), share)
    assert found.mean() < 0.03
    assert np.median(found) < 1e-9


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_at_given_bits_the_widths_are_nearly_always_the_best(share):
    found = gaps(range(40), share, bits=3, classes=4)
    assert found.size > 20
    assert found.mean() < 0.03
    assert (found < 1e-9).mean() > 0.9


def test_with_more_filters_the_gap_closes():
    assert gaps(range(4), 0.3, groups=3, classes=7, layers=4).max() < 0.01


def chain(seed, groups, classes, tail=5):
    """Layer g makes group g and reads group g − 1; the last one makes the outputs."""
    rng = np.random.default_rng(seed)
    ids = [np.arange(classes) + 1000 * g for g in range(groups)]
    curves = [curve(rng, i) for i in ids]
    layers = []
    for g in range(groups + 1):
        filters = ids[g] if g < groups else np.full(tail, -1)
        inputs = ids[g - 1] if g else np.full(3, -1)
        unit = float(rng.integers(1, 30))
        layers.append(LayerCost(unit, filters, inputs, falling(rng, len(filters))))
    return layers, curves


def chain_dual(layers, curves, budget, price, bits):
    """The Lagrangian bound of a chain at one price, exact over all widths (Viterbi)."""
    best = None  # least loss + price·cost of the layers so far (n + 1,) by classes gone
    for g, layer in enumerate(layers):
        fans = [len(layer.inputs)] if g == 0 else len(layer.inputs) - np.arange(len(layer.inputs))
        before = np.zeros(1) if best is None else best[: len(fans)]
        values = (
            layer.distortion[:, bits][None]
            + price * layer.unit * np.multiply.outer(np.asarray(fans), np.asarray(bits))[:, None, :]
        )
        values = values.min(axis=2)  # (fan, filter)
        if g < len(curves):
            place = {int(c): n for n, c in enumerate(curves[g].order)}
            values = values[:, np.argsort([place[int(c)] for c in layer.filters])]
            left = np.pad(values[:, ::-1].cumsum(axis=1)[:, ::-1], ((0, 0), (0, 1)))
            best = (before[:, None] + left).min(axis=0) + curves[g].loss
        else:
            best = (before[:, None] + values.sum(axis=1, keepdims=True)).min(axis=0)
    return best[0] - price * budget


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_on_chains_the_loss_is_near_the_exact_bound(share):
    for seed in range(3):
        layers, curves = chain(seed, groups=8, classes=24)
        budget = share * full_cost(layers)
        result = allocate(layers, curves, budget)
        prices = np.geomspace(1e-5, 1e2, 80) * result.loss / budget
        bound = max(chain_dual(layers, curves, budget, p, list(range(9))) for p in prices)
        assert bound <= result.loss * (1 + 1e-9)
        assert result.loss <= 1.03 * bound
        assert 0.99 * budget <= result.cost <= budget


def chain_optimum(layers, curves, budget, bits):
    """The optimum of a chain at given bits, by dynamic programming over width and whole cost."""
    room = int(budget // bits)
    best = np.zeros((1, room + 1))
    for g, layer in enumerate(layers):
        fans = [len(layer.inputs)] if g == 0 else len(layer.inputs) - np.arange(len(best))
        D = layer.distortion[:, bits]
        lost, left = np.array([D.sum()]), [len(D)]
        if g < len(curves):
            place = {int(c): n for n, c in enumerate(curves[g].order)}
            D = D[np.argsort([place[int(c)] for c in layer.filters])]
            lost = np.append(D[::-1].cumsum()[::-1], 0)[:-1] + curves[g].loss[:-1]
            left = [len(D) - n for n in range(len(D))]
        new = np.full((len(left), room + 1), np.inf)
        for (i, fan), (j, m) in itertools.product(enumerate(fans), enumerate(left)):
            c = int(layer.unit * fan * m)
            if c <= room:
                np.minimum(new[j, c:], best[i, : room + 1 - c] + lost[j], out=new[j, c:])
        best = new
    return best[0, -1]


def test_on_chains_at_given_bits_the_loss_is_near_the_optimum():
    found = []
    for seed, share in itertools.product(range(6), (0.3, 0.5, 0.8)):
        layers, curves = chain(seed, groups=5, classes=10)
        budget = share * full_cost(layers, 4)
        result = allocate(layers, curves, budget, bits=4)
        assert result.cost <= budget
        found.append(result.loss / chain_optimum(layers, curves, budget, 4) - 1)
    assert min(found) > -1e-9
    assert np.mean(found) < 0.03


def test_a_larger_budget_never_loses_more():
    for seed in range(40):
        layers, curves = problem(seed, classes=5)
        last = np.inf
        for share in (0.1, 0.22, 0.35, 0.6):
            result = allocate(layers, curves, share * full_cost(layers))
            assert result.loss <= last * (1 + 1e-9)
            last = result.loss
