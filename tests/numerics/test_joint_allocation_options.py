import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.errors import BudgetError, VerificationError
from onnx_esn.numerics.bit_allocation import allocate_bits
from onnx_esn.numerics.joint_allocation import LayerCost, WidthCurve, allocate
from tests.numerics.test_joint_allocation import account, chain, full_cost, problem, state


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    share=st.floats(0.01, 1.1),
    bits=st.sampled_from([None, None, 2, 8]),
    round_to=st.integers(1, 3),
    min_width=st.integers(0, 3),
    scale=st.floats(0.1, 10),
)
def test_any_choice_of_options_holds(seed, share, bits, round_to, min_width, scale):
    layers, curves = problem(seed, classes=4)
    options = {"bits": bits, "round_to": round_to, "min_width": min_width, "prune_scale": scale}
    budget = share * full_cost(layers) + 7
    try:
        result = allocate(layers, curves, budget, fixed_cost=7, **options)
    except BudgetError:
        assert bits is not None or share < 0.05
        return
    cost, loss = account(layers, curves, result, scale)
    assert (cost + 7, loss) == pytest.approx((result.cost, result.loss))
    assert result.cost <= budget
    for n in result.gone:
        assert n == 0 or ((4 - n) % round_to == 0 and 4 - n >= min_width)
    if bits is not None:
        kept = [
            b[f] for b, (_, f) in zip(result.bits, state(layers, curves, result.gone), strict=True)
        ]
        assert all((b == bits).all() for b in kept)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1.1))
def test_without_curves_it_is_the_allocation_of_bits(seed, share):
    layers, _ = problem(seed, classes=6)
    rates = np.concatenate([np.full(len(f), rate) for rate, f in state(layers, [], [])])
    D = np.concatenate([layer.distortion for layer in layers])
    budget = share * full_cost(layers)
    expected = allocate_bits(D, rates[:, None] * np.arange(9), budget)
    result = allocate(layers, [], budget)
    assert np.concatenate(result.bits).tolist() == expected.tolist()
    assert result.gone == ()


def test_given_widths_are_kept_and_only_bits_are_chosen():
    layers, curves = problem(3, classes=5)
    budget = 0.2 * full_cost(layers)
    result = allocate(layers, curves, budget, widths=[2, 3])
    assert result.gone == (2, 3)
    assert result.loss >= allocate(layers, curves, budget).loss
    rates = [(r, f) for r, f in state(layers, curves, (2, 3))]
    D = np.concatenate([x.distortion[f] for x, (_, f) in zip(layers, rates, strict=True)])
    unit = np.concatenate([np.full(len(f), r) for r, f in rates])
    b = allocate_bits(D, unit[:, None] * np.arange(9), budget)
    loss = sum(x.loss[n] for x, n in zip(curves, (2, 3), strict=True))
    assert result.loss == pytest.approx(loss + D[np.arange(b.size), b].sum())
    both = allocate(layers, curves, 1e9, widths=[1, 0], bits=4)
    assert both.gone == (1, 0)
    assert max(int(b.max()) for b in both.bits) == 4


def test_the_whole_budget_prunes_nothing_and_free_channels_go():
    layers, curves = chain(0, 3, 6)
    result = allocate(layers, curves, full_cost(layers))
    assert result.gone == (0, 0, 0)
    assert all(
        (b == x.distortion.argmin(axis=1)).all() for b, x in zip(result.bits, layers, strict=True)
    )
    free = [WidthCurve(curves[0].order, np.zeros(7)), *curves[1:]]
    assert allocate(layers, free, 0.3 * full_cost(layers)).gone[0] == 5


def test_a_tight_budget_shares_out_between_pruning_and_bits():
    layers, curves = chain(1, 4, 12)
    budget = 0.1 * full_cost(layers)
    joint = allocate(layers, curves, budget)
    only_bits = allocate(layers, curves, budget, widths=[0] * 4)
    only_widths = allocate(layers, curves, budget, bits=8)
    assert joint.loss < min(only_bits.loss, only_widths.loss)
    dear = allocate(layers, curves, budget, prune_scale=1e9)
    assert dear.gone == (0,) * 4
    assert dear.loss == pytest.approx(only_bits.loss)


def test_classes_that_stay_count_as_width():
    layers, curves = chain(2, 1, 8)
    order = curves[0].order[:6]  # two of the eight never go
    some = [WidthCurve(order, curves[0].loss[:7], stays=2)]
    widths = {
        8
        - allocate(layers, some, x * full_cost(layers, 4), bits=4, round_to=4, min_width=3).gone[0]
        for x in np.linspace(0.5, 1, 12)
    }
    assert widths == {4, 8}


def test_bits_that_are_not_allowed_are_not_taken():
    layers, curves = chain(4, 2, 6)
    for layer in layers:
        layer.distortion[:, [0, 1, 3, 6, 8]] = np.inf
        layer.distortion[0, 2] = np.inf
    for share in (0.3, 0.6, 1.0):
        result = allocate(layers, curves, share * full_cost(layers))
        kept = [b[b > 0] for b in result.bits]
        assert set(np.concatenate(kept)) <= {2, 4, 5, 7}
        _, loss = account(layers, curves, result)
        assert np.isfinite(loss)
    forbidden = [
        WidthCurve(curves[0].order, np.array([0, 1, np.inf, np.inf, 2, np.inf, 3])),
        curves[1],
    ]
    assert allocate(layers, forbidden, 0.2 * full_cost(layers)).gone[0] in (0, 1, 4)


def test_an_unreachable_budget_says_what_the_cheapest_costs():
    layers, curves = chain(5, 2, 6)
    narrow = allocate(layers, curves, 1e9, bits=2, widths=[5, 5]).cost
    with pytest.raises(BudgetError, match=f"widths and bits cost {narrow + 3:.6g}"):
        allocate(layers, curves, narrow + 2, bits=2, fixed_cost=3)
    assert allocate(layers, curves, narrow + 3, bits=2, fixed_cost=3).gone == (5, 5)
    assert allocate(layers, curves, 0.0).cost == 0
    assert allocate([], [], 0.0).loss == 0


def test_wrong_input_is_refused():
    layers, curves = chain(6, 2, 3)
    with pytest.raises(ValueError, match="twice"):
        allocate(layers, [curves[0], curves[0]], 10)
    with pytest.raises(ValueError, match="losses for"):
        allocate(layers, [WidthCurve(curves[0].order, np.zeros(3))], 10)
    with pytest.raises(ValueError, match="must be"):
        allocate([LayerCost(1.0, np.arange(3), None, np.ones((2, 9)))], [], 10)
    with pytest.raises(ValueError, match="below 9"):
        allocate(layers, curves, 10, bits=9)
    with pytest.raises(ValueError, match="allowed"):
        allocate([LayerCost(1.0, np.arange(1), None, np.full((1, 9), np.inf))], [], 10)
    with pytest.raises(ValueError, match="no width"):
        allocate(layers, curves, 10, widths=[4, 0])
    with pytest.raises(VerificationError, match="distortion"):
        allocate([LayerCost(1.0, np.arange(1), None, np.full((1, 9), np.nan))], [], 10)
    with pytest.raises(VerificationError, match="width"):
        allocate(layers, [WidthCurve(curves[0].order, np.full(4, np.nan)), curves[1]], 10)
