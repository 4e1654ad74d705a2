"""`Quantize` with the mid-tread quantizer, and models on the grid of one met by the other."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.errors import OptionError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.weights import read_weight
from onnx_esn.passes.inspecting.inspection import inspect, total_cost
from onnx_esn.passes.layers.costs import measured_view
from onnx_esn.passes.pruning.zero_filters import RemoveZeroFilters
from onnx_esn.passes.quantizing.bit_budget import QuantizeToBudget
from onnx_esn.passes.quantizing.quantization import Quantize
from onnx_esn.plans import LayerQuantization, QuantizationPlan
from tests.oracles.midtread import least_squared_error
from tests.passes.tiny import graph, tensor, two_convs, weights

DTYPES = [np.float32, np.float16, np.float64]


def tread(**options):
    return Quantize(quantizer="mid-tread", **options)


def read(model):
    constants = Constants(model)
    return [read_weight(x, constants) for x in measured_view(model).layers]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_bits_are_what_inspect_finds(bits, dtype):
    model = two_convs(dtype=dtype)
    result = tread(bits=bits)(model)
    assert not result.skipped
    assert result.plan.quantizer == "mid-tread"
    found = read(result.model)
    assert [w.quantizer for w in found] == ["mid-tread"] * 3
    for weight in found:
        assert (weight.codes == np.rint(weight.codes)).all()
        assert weight.filter_bits.max() == bits
    inspection = inspect(result.model)
    assert inspection.totals.esn_prime == result.details["cost_after"]
    assert [p.bits for p in result.plan.layers] == [x.filter_bits for x in inspection.layers]
    onnx.checker.check_model(result.model)


@pytest.mark.parametrize("bits", [2, 3])
def test_the_step_is_that_of_least_squared_error(bits):
    model = two_convs(norm=False)
    result = tread(bits=bits)(model)
    for name, M in (("W1", 8), ("W2", 8), ("W3", 4)):
        old, new = (tensor(m, name).reshape(M, -1).astype(float) for m in (model, result.model))
        for w, q in zip(old, new, strict=True):
            assert ((w - q) ** 2).sum() <= least_squared_error(w, bits, 3000) * (1 + 1e-5)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_on_its_grid_stays(bits, dtype):
    once = tread(bits=bits)(two_convs(dtype=dtype)).model
    again = tread(bits=8)(once)
    assert not again.modified
    assert again.model.SerializeToString() == once.SerializeToString()
    assert not tread(target_cost="100%")(once).modified
    assert bits == 2 or tread(bits=2)(once).modified


@pytest.mark.parametrize(
    ("first", "second"), [("mid-rise", "mid-tread"), ("mid-tread", "mid-rise")]
)
def test_what_is_on_the_other_grid_stays_while_it_fits(first, second):
    once = Quantize(bits=4, quantizer=first)(two_convs()).model
    for options in ({"bits": 4}, {"bits": 8}, {"target_cost": "100%"}):
        again = Quantize(quantizer=second, **options)(once)
        assert not again.modified
        assert again.plan.layers == ()
        assert [s.reason for s in again.skipped] == [
            f"it lies on a {first} grid of no more bits already"
        ] * 3
        assert again.details["cost_after"] == total_cost(once)
    for options in ({"bits": 3}, {"target_cost": "70%"}):
        again = Quantize(quantizer=second, **options)(once)
        assert len(again.plan.layers) == 3
        assert read(again.model)[0].quantizer == again.plan.quantizer == second
        assert again.details["cost_after"] == total_cost(again.model) < total_cost(once)


def test_conversion_can_be_asked_for():
    once = tread(bits=3)(two_convs()).model
    for options in ({"bits": 4}, {"target_cost": "100%"}):
        result = Quantize(convert=True, **options)(once)
        assert [w.quantizer for w in read(result.model)] == ["mid-rise"] * 3


def test_odd_codes_alone_are_counted_as_what_they_are_read_as():
    W = np.sign(weights(6, 3, 3, 3))
    model = graph([("Conv", ["x", "W"], ["y"], {})], {"x": ["N", 3, 5, 5]}, {"W": W * 0.3})
    result = tread(bits=2)(model)
    assert not result.modified, "signs are a mid-rise grid of one bit already"
    entry = LayerQuantization("Conv_0", (2,) * 6, (0.5,) * 6)
    result = Quantize(plan=QuantizationPlan((entry,), quantizer="mid-tread"))(model)
    assert set(np.abs(tensor(result.model, "W")).ravel()) == {0.5}
    assert result.details["mean_bits"] == 1
    assert result.details["cost_after"] == total_cost(result.model)


def test_zero_filters_of_the_other_grid_stay_zero():
    W = weights(6, 3, 3, 3)
    W[1] = 0
    model = graph([("Conv", ["x", "W"], ["y"], {})], {"x": ["N", 3, 5, 5]}, {"W": W})
    once = tread(bits=4)(model)
    assert once.plan.layers[0].bits == (4, 0, 4, 4, 4, 4)
    again = Quantize(bits=3)(once.model)
    assert again.plan.layers[0].bits == (3, 0, 3, 3, 3, 3)


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0.03, 0.25), seed=st.integers(0, 50), norm=st.booleans())
def test_budgets_are_met_from_below(share, seed, norm):
    model = two_convs(seed=seed, norm=norm)
    result = tread(target_cost=f"{100 * share}%")(model)
    details = result.details
    assert details["cost_after"] == total_cost(result.model) <= details["target"]
    bits = [b for entry in result.plan.layers for b in entry.bits]
    assert 1 not in bits
    # Two more bits for the filter with the fewest MACs do not fit, or would not help.
    assert details["target"] - details["cost_after"] < 2 * 972 or min(bits) == 8


def test_the_smallest_budget_keeps_two_bits_in_a_filter_of_each_layer():
    least = 2 * (972 + 324 + 8)
    result = tread(target_cost=least)(two_convs())
    assert result.details["cost_after"] == least
    assert [sorted(x.bits)[-2:] for x in result.plan.layers] == [[0, 2]] * 3


@pytest.mark.parametrize("share", ["4%", "6%", "9%"])
@pytest.mark.parametrize("first", ["", "mid-rise"])
def test_a_budget_with_filters_removed(share, first):
    """What the removed filters free is given out again; the plan is one for the whole model."""
    model = two_convs()
    if first:
        model = Quantize(bits=6, quantizer=first)(model).model
    whole = total_cost(two_convs())
    result = QuantizeToBudget(tread(target_cost=share, reference=two_convs()))(model)
    small = RemoveZeroFilters()(result.model).model
    assert total_cost(small) == result.details["cost_after"] <= whole * float(share[:-1]) / 100
    replayed = Quantize(plan=result.plan)(model)
    assert replayed.model.SerializeToString() == result.model.SerializeToString()


@pytest.mark.parametrize("share", [0.9, 0.8, 0.7])
def test_a_budget_that_the_smaller_model_meets_as_it_is(share):
    """Layers on the other grid that had to go at first do not come back halfway."""
    W = weights(8, 3, 3, 3)
    W[[2, 5]] *= 3e-4
    nodes = [("Conv", ["x", "W1"], ["a"], {}), ("Relu", ["a"], ["b"], {})]
    model = graph(
        [*nodes, ("Conv", ["b", "W2"], ["y"], {})],
        {"x": ["N", 3, 8, 8]},
        {"W1": W, "W2": weights(4, 8, 3, 3, seed=1)},
    )
    once = Quantize(bits=4)(model).model
    target = share * total_cost(once)
    result = QuantizeToBudget(tread(target_cost=target))(once)
    small = RemoveZeroFilters()(result.model).model
    assert 0.9 * target < total_cost(small) == result.details["cost_after"] <= target
    assert len(result.plan.layers) == 2


def test_options():
    with pytest.raises(OptionError, match=r"--bits 1 leaves the mid-tread quantizer nothing"):
        tread(bits=1)
    with pytest.raises(OptionError, match="there are: mid-rise, mid-tread"):
        Quantize(bits=4, quantizer="midtread")
    plan = Quantize(bits=4)(two_convs()).plan
    with pytest.raises(OptionError, match="the plan is for the mid-rise quantizer"):
        tread(plan=plan)(two_convs())
    plan = tread(bits=4)(two_convs()).plan
    for same in (tread(plan=plan), Quantize(plan=plan)):  # the default says nothing
        assert [w.quantizer for w in read(same(two_convs()).model)] == ["mid-tread"] * 3
