import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.elimination import Consumer, eliminate, improve

EXACT = 10**9  # batch: compare all classes at each step


def moments(rng, d, samples=None, mix=0.5):
    X = rng.standard_normal((samples or 4 * d, d))
    X = X + mix * X @ rng.standard_normal((d, d))
    return X.T @ X / len(X)


def consumer(rng, owner, M=4, weight=1.0, samples=None):
    owner = np.asarray(owner)
    H = moments(rng, owner.size, samples)
    return Consumer(H, rng.standard_normal((M, owner.size)), owner, weight)


def direct_loss(consumers, gone, ridge):
    """The loss of removing these classes, each consumer refitted by one solve of its own."""
    total = 0.0
    for c in consumers:
        H = c.H + max(ridge, 1e-9) * np.diag(np.diag(c.H))
        stays = ~np.isin(c.owner, gone)
        W = np.zeros_like(c.W)
        W[:, stays] = np.linalg.lstsq(H[np.ix_(stays, stays)], H[stays] @ c.W.T, rcond=None)[0].T
        total += c.weight * np.trace((c.W - W) @ H @ (c.W - W).T)
    return total


def scale(consumers):
    return sum(c.weight * np.trace(c.W @ c.H @ c.W.T) for c in consumers)


def problems():
    """Consumers that share classes, with blocks of unequal sizes and features that stay."""
    rng = np.random.default_rng(5)
    yield "one", [consumer(rng, np.arange(7))], range(7)
    yield "taps", [consumer(rng, np.repeat(np.arange(6), 4), M=9)], range(6)
    yield "stays", [consumer(rng, [0, 1, -1, 2, 2, -1, 3, 4, 4, 4])], range(5)
    yield "wide", [consumer(rng, np.repeat(np.arange(5), 2), M=40)], range(5)
    joint = [
        consumer(rng, np.arange(6), weight=2.0),
        consumer(rng, np.repeat([3, 1, 5, 0], 3), M=3, weight=0.3),
        consumer(rng, [-1, 4, 4, 2, 0, 9, 9], M=1),
    ]
    yield "joint", joint, [4, 0, 1, 2, 3, 5]


CASES = [pytest.param(c, list(k), id=name) for name, c, k in problems()]


@pytest.mark.parametrize("ridge", [1e-2, 1e-6])
@pytest.mark.parametrize("batch", [1, 3, EXACT])
@pytest.mark.parametrize(("consumers", "classes"), CASES)
def test_the_losses_are_those_of_direct_least_squares(consumers, classes, batch, ridge):
    result = eliminate(consumers, classes, ridge=ridge, keep=0, batch=batch)
    assert sorted(result.order) == sorted(classes)
    assert result.loss[0] == 0
    for n in range(len(classes) + 1):
        expected = direct_loss(consumers, result.order[:n], ridge)
        assert result.loss[n] == pytest.approx(expected, rel=1e-8, abs=1e-8 * scale(consumers))


@pytest.mark.parametrize(("consumers", "classes"), CASES)
def test_each_step_takes_the_best_single_class(consumers, classes):
    order = eliminate(consumers, classes, ridge=1e-3, keep=0, batch=EXACT).order.tolist()
    for n, chosen in enumerate(order):
        options = {
            c: direct_loss(consumers, [*order[:n], c], 1e-3) for c in classes if c not in order[:n]
        }
        assert options[chosen] <= min(options.values()) * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize(("consumers", "classes"), CASES)
def test_no_set_of_brute_force_is_better_than_it_can_be(consumers, classes):
    loss = eliminate(consumers, classes, keep=0).loss
    for n in range(1, len(classes) + 1):
        sets = itertools.combinations(classes, n)
        best = min(direct_loss(consumers, s, 1e-2) for s in sets)
        assert best * (1 - 1e-8) - 1e-10 <= loss[n]


def test_greedy_sets_are_close_to_the_best_ones():
    gaps = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        taps = np.repeat(np.arange(7), rng.integers(1, 4))
        both = [consumer(rng, taps, M=5), consumer(rng, rng.permutation(7), M=5)]
        loss = eliminate(both, range(7), keep=0).loss
        for n in (2, 4):
            sets = itertools.combinations(range(7), n)
            gaps.append(loss[n] / min(direct_loss(both, s, 1e-2) for s in sets))
    assert np.mean(gaps) < 1.1
    assert max(gaps) < 1.7


def test_exchanges_lower_the_loss_to_where_none_helps():
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        both = [consumer(rng, np.repeat(np.arange(7), 2), M=5), consumer(rng, rng.permutation(7))]
        greedy = eliminate(both, range(7), keep=4)
        gone, loss = improve(both, range(7), greedy.order, rounds=20)
        assert len(set(gone)) == 3
        assert loss == pytest.approx(direct_loss(both, gone, 1e-2), rel=1e-8)
        assert loss <= greedy.loss[-1] * (1 + 1e-9)
        for out, new in itertools.product(gone, range(7)):
            swapped = {*gone} - {out} | {new}
            if len(swapped) == 3:
                assert loss <= direct_loss(both, sorted(swapped), 1e-2) * (1 + 1e-6)
        best = min(direct_loss(both, s, 1e-2) for s in itertools.combinations(range(7), 3))
        found.append(loss / best)
    assert np.mean(found) < 1.02
    assert improve(both, range(7), [])[1] == improve([], range(3), [1])[1] == 0
    with pytest.raises(ValueError, match="among"):
        improve(both, range(7), [9])


def test_many_at_a_time_lose_hardly_more_than_one_by_one():
    rng = np.random.default_rng(2)
    big = consumer(rng, np.repeat(np.arange(120), 2), M=30)
    exact = eliminate([big], np.arange(120), batch=EXACT).loss
    coarse = eliminate([big], np.arange(120), batch=8).loss
    assert (coarse[1:] <= 1.05 * exact[1:]).all()
    order = eliminate([big], np.arange(120), batch=8).order
    for n in (40, 90, 119):
        assert coarse[n] == pytest.approx(direct_loss([big], order[:n], 1e-2), rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(-1, 5), min_size=1, max_size=14),
    st.lists(st.integers(-1, 5), min_size=1, max_size=14),
    st.integers(1, 6),
    st.sampled_from([1, 4, EXACT]),
)
def test_any_owners_of_any_rank(seed, first, second, samples, batch):
    rng = np.random.default_rng(seed)
    consumers = [
        consumer(rng, first, M=3, samples=samples),
        consumer(rng, second, M=2, samples=20, weight=0.5),
    ]
    result = eliminate(consumers, np.arange(6), batch=batch, keep=0)
    assert sorted(result.order) == list(range(6))
    assert (np.diff(result.loss) >= 0).all()
    for n in range(7):
        expected = direct_loss(consumers, result.order[:n], 1e-2)
        assert result.loss[n] == pytest.approx(expected, rel=1e-7, abs=1e-8 * scale(consumers))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(1e-6, 0.1))
def test_units_of_features_and_outputs_do_not_matter(seed, samples, ridge):
    rng = np.random.default_rng(seed)
    c = consumer(rng, [0, 0, 1, 2, 2, 3], samples=samples)
    unit = 10.0 ** rng.integers(-4, 5, 6)
    other = Consumer(c.H * unit * unit[:, None], c.W / unit * 3.0, c.owner)
    a, b = (eliminate([x], range(4), ridge=ridge, keep=0) for x in (c, other))
    np.testing.assert_allclose(9 * a.loss, b.loss, rtol=1e-4, atol=1e-5 * scale([c]))


def test_features_that_are_always_zero_go_first_at_no_loss():
    rng = np.random.default_rng(0)
    c = consumer(rng, [0, 1, 2, 2, 3, -1])
    dead = [1, 2, 3]
    c.H[dead], c.H[:, dead] = 0, 0
    result = eliminate([c], range(5), keep=0)  # class 4 owns nothing at all
    assert result.order[:3].tolist() == [1, 2, 4]
    assert (result.loss[:4] == 0).all()
    assert result.loss[4] > 0
    nothing = Consumer(np.zeros((3, 3)), np.ones((2, 3)), np.arange(3))
    assert eliminate([nothing], range(3)).loss.tolist() == [0, 0, 0]
    assert eliminate([], range(3)).order.tolist() == [0, 1]
    assert eliminate([c], []).loss.tolist() == [0]
    empty = Consumer(np.zeros((0, 0)), np.ones((2, 0)), np.zeros(0, dtype=np.int64))
    assert eliminate([empty], range(2), keep=0).loss.tolist() == [0, 0, 0]


@pytest.mark.parametrize("batch", [1, EXACT])
@pytest.mark.parametrize("ridge", [0.0, 1e-6, 1e-2])
def test_of_twins_one_goes_for_next_to_nothing_and_the_other_does_not(ridge, batch):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((50, 4))
    X = np.concatenate([X, X[:, [0, 2]]], axis=1)  # 4 is the twin of 0, 5 of 2
    W = rng.standard_normal((3, 6))
    c = Consumer(X.T @ X / 50, W, np.arange(6))
    result = eliminate([c], range(6), ridge=ridge, keep=0, batch=batch)
    assert sorted(x % 4 if x < 4 else x - 4 + (x == 5) for x in result.order[:2]) == [0, 2]
    assert result.loss[2] <= (4 * ridge + 1e-6) * scale([c])
    assert result.loss[3] > 10 * result.loss[2]


def test_costs_rank_by_loss_per_cost():
    c = Consumer(np.diag([1.0, 2, 3, 4]), np.ones((1, 4)), np.arange(4))
    assert eliminate([c], range(4), ridge=0, keep=0).order.tolist() == [0, 1, 2, 3]
    by_cost = eliminate([c], range(4), ridge=0, keep=0, costs=[1, 1, 9, 1])
    assert by_cost.order.tolist() == [2, 0, 1, 3]
    np.testing.assert_allclose(by_cost.loss, [0, 3, 4, 6, 10])


def test_keep_leaves_that_many_and_equals_go_in_their_order():
    c = Consumer(np.eye(5), np.ones((2, 5)), np.array([7, 3, 9, 3, 8]))
    result = eliminate([c], [9, 7, 8, 3], ridge=0, keep=2)
    assert result.order.tolist() == [9, 7]
    np.testing.assert_allclose(result.loss, [0, 2, 4])
    assert eliminate([c], [3, 9], keep=5).order.size == 0


def test_what_is_not_asked_for_stays():
    rng = np.random.default_rng(3)
    c = consumer(rng, [0, 1, 2, 3])
    only = eliminate([c], [1, 3], keep=0)
    locked = eliminate([Consumer(c.H, c.W, np.array([-1, 1, -1, 3]))], [1, 3], keep=0)
    assert only.order.tolist() == locked.order.tolist()
    np.testing.assert_allclose(only.loss, locked.loss)


def test_wrong_input_is_refused():
    c = Consumer(np.eye(3), np.ones((2, 3)), np.arange(3))
    with pytest.raises(ValueError, match="distinct"):
        eliminate([c], [1, 1])
    with pytest.raises(ValueError, match="positive"):
        eliminate([c], [0, 1], costs=[1, 0])
    with pytest.raises(ValueError, match="batch"):
        eliminate([c], [0, 1], batch=0)
    with pytest.raises(ValueError, match="must be"):
        eliminate([Consumer(np.eye(3), np.ones((2, 4)), np.arange(3))], [0])
    with pytest.raises(VerificationError, match="finite"):
        eliminate([Consumer(np.full((3, 3), np.nan), c.W, c.owner)], [0])
    bad = np.array([[1.0, 5], [5, 1]])
    with pytest.raises(VerificationError, match="semidefinite"):
        eliminate([Consumer(bad, np.ones((1, 2)), np.arange(2))], [0])


def test_moments_that_rounding_made_indefinite_are_accepted():
    X = np.random.default_rng(8).standard_normal((5, 30)).astype(np.float32)
    H = (X.T @ X).astype(np.float64)
    assert np.linalg.eigvalsh(H)[0] < 0
    result = eliminate([Consumer(H, np.ones((2, 30)), np.arange(30))], range(30), ridge=0)
    assert np.isfinite(result.loss).all()
