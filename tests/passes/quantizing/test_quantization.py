from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnx_esn.errors import BudgetError, OptionError
from onnx_esn.passes.inspecting.inspection import inspect, total_cost
from onnx_esn.passes.quantizing.quantization import Quantize
from tests.models import MODELS
from tests.oracles.numerics import least_squared_error
from tests.passes.tiny import graph, tensor, two_convs, weights


def run(model, x):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_uniform_bits_are_what_inspect_finds(bits, dtype):
    model = two_convs(dtype=dtype)
    before = model.SerializeToString()
    result = Quantize(bits=bits)(model)
    assert model.SerializeToString() == before
    assert result.modified
    assert not result.skipped
    inspection = inspect(result.model)
    assert all(layer.quantized for layer in inspection.layers)
    assert max(max(layer.bits) for layer in inspection.layers) == bits
    assert inspection.totals.esn_prime == result.details["cost_after"]
    assert [p.bits for p in result.plan.layers] == [x.filter_bits for x in inspection.layers]
    onnx.checker.check_model(result.model)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_the_step_is_that_of_least_squared_error(bits):
    model = two_convs(norm=False)
    result = Quantize(bits=bits)(model)
    for name, M in (("W1", 8), ("W2", 8), ("W3", 4)):
        old, new = (tensor(m, name).reshape(M, -1).astype(float) for m in (model, result.model))
        for w, q in zip(old, new, strict=True):
            assert ((w - q) ** 2).sum() <= least_squared_error(w, bits, 3000) * (1 + 1e-5)


def test_more_bits_agree_better():
    model, x = two_convs(), weights(4, 3, 6, 6, seed=9)
    y = run(model, x)
    error = [np.square(run(Quantize(bits=b)(model).model, x) - y).sum() for b in (2, 4, 6, 8)]
    assert error == sorted(error, reverse=True)
    assert error[-1] < 1e-3 * np.square(y).sum()


def test_zero_and_dead_filters_stay_zero():
    W = weights(6, 3, 3, 3)
    W[1], W[4], W[5] = 0, W[4] * 1e-8, W[5] * 1e-4
    model = graph([("Conv", ["x", "W"], ["y"], {})], {"x": ["N", 3, 5, 5]}, {"W": W})
    result = Quantize(bits=4)(model)
    new = tensor(result.model, "W").reshape(6, -1)
    assert [bool(row.any()) for row in new] == [True, False, True, True, False, True]
    assert result.plan.layers[0].bits == (4, 0, 4, 4, 0, 4)
    assert result.details["pruned_filters"] == 2


def test_the_gain_decides_what_is_dead():
    # A filter far weaker than the others that BatchNormalization amplifies is not dead.
    model = two_convs()
    W = tensor(model, "W1").copy()
    W[2] *= 1e-10
    for t in model.graph.initializer:
        if t.name == "W1":
            t.raw_data = W.tobytes()
        elif t.name == "var":
            t.raw_data = np.array([1, 1, 1e-12, 1, 1, 1, 1, 1], np.float32).tobytes()
    assert Quantize(bits=4)(model).plan.layers[0].bits[2] == 0
    model.graph.node[1].attribute.append(helper.make_attribute("epsilon", 1e-20))
    assert Quantize(bits=4)(model).plan.layers[0].bits[2] == 4


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0.012, 0.25), seed=st.integers(0, 50), norm=st.booleans())
def test_budgets_are_met_from_below(share, seed, norm):
    model = two_convs(seed=seed, norm=norm)
    result = Quantize(target_cost=f"{100 * share}%")(model)
    details = result.details
    assert details["cost_before"] == total_cost(model)
    assert details["target"] == pytest.approx(share * details["cost_before"])
    assert details["cost_after"] <= details["target"]
    assert details["cost_after"] == total_cost(result.model)
    macs = inspect(model).totals.macs
    assert details["mean_bits"] == details["cost_after"] / macs
    # One more bit for the filter with the fewest MACs does not fit, or would not help.
    bits = [b for entry in result.plan.layers for b in entry.bits]
    assert details["target"] - details["cost_after"] < 972 or min(bits) == 8


def test_a_budget_gives_less_error_than_as_many_uniform_bits():
    model = two_convs()
    for name in ("W1", "W2", "W3"):
        for t in model.graph.initializer:
            if t.name == name:
                t.raw_data = (tensor(model, name) ** 3).tobytes()  # heavy tails
    uniform = Quantize(bits=3)(model)
    budget = Quantize(target_cost=uniform.details["cost_after"])(model)

    def noise(result):
        total = 0.0
        for name, M in (("W1", 8), ("W2", 8), ("W3", 4)):
            w, q = (tensor(m, name).reshape(M, -1) for m in (model, result.model))
            error, energy = np.square(w - q).sum(axis=1), np.square(w).sum(axis=1)
            relative, absolute = error / energy / M, error / energy.sum()
            total += np.sqrt(relative * absolute).sum()
        return total

    assert noise(budget) < noise(uniform)


def test_the_allocation_does_not_see_how_layers_are_scaled():
    model, scaled = two_convs(norm=False), two_convs(norm=False)
    for t in scaled.graph.initializer:
        if t.name == "W1":
            t.raw_data = (tensor(model, "W1") * 16).astype(np.float32).tobytes()
    a, b = (Quantize(target_cost="10%")(m).plan for m in (model, scaled))
    assert [x.bits for x in a.layers] == [x.bits for x in b.layers]


def test_the_allocation_gives_louder_channels_more_bits():
    model = two_convs(norm=False)
    factor = 2.0 ** np.arange(-4, 4).reshape(8, 1, 1, 1)
    for t in model.graph.initializer:
        if t.name == "W1":
            t.raw_data = (tensor(model, "W1") * factor).astype(np.float32).tobytes()
    bits = Quantize(target_cost="10%")(model).plan.layers[0].bits
    assert bits[0] < bits[-1]


def test_a_percentage_of_another_model():
    model = two_convs()
    small = Quantize(bits=4)(model).model
    result = Quantize(target_cost="10%", reference=model)(small)
    assert result.details["target"] == pytest.approx(0.1 * total_cost(model))


def test_an_unreachable_budget_says_what_can_be_reached():
    with pytest.raises(BudgetError, match="smallest is") as caught:
        Quantize(target_cost=100)(two_convs())
    least = float(str(caught.value).split("smallest is ")[1].split(",")[0])
    assert least == 972 + 324 + 8
    result = Quantize(target_cost=least)(two_convs())
    assert result.details["cost_after"] == least
    with pytest.raises(BudgetError):
        Quantize(target_cost="3%", exclude=("Conv*", "Gemm*"))(two_convs())


def test_exclude():
    model = two_convs()
    result = Quantize(bits=4, exclude=("Conv_0", "W3"))(model)
    assert [x.quantized for x in inspect(result.model).layers] == [False, True, False]
    assert {s.node: s.reason for s in result.skipped} == {
        "Conv_0": "excluded by 'Conv_0'",
        "Gemm_6": "excluded by 'W3'",
    }
    assert result.plan.excluded == ("Conv_0", "W3")
    budget = Quantize(target_cost="80%", exclude=("Conv_0",))(model)
    fixed = inspect(model).layers[0].esn_prime
    assert fixed < budget.details["cost_after"] <= 0.8 * total_cost(model)
    with pytest.raises(OptionError, match="Conv_0"):
        Quantize(bits=4, exclude=("Conv_1",))(model)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_what_is_on_a_grid_stays(bits, dtype):
    once = Quantize(bits=bits)(two_convs(dtype=dtype)).model
    again = Quantize(bits=8)(once)
    assert not again.modified
    assert again.model.SerializeToString() == once.SerializeToString()
    assert not Quantize(target_cost="100%")(once).modified
    assert Quantize(bits=1)(once).modified


@pytest.mark.parametrize("name", ["einsum_as_pointwise_conv", "einsum_as_linear_layer"])
def test_an_einsum_that_counts_is_not_said_to_be_left_out(name):
    result = Quantize(bits=4)(MODELS[name].build())
    assert "e" in {entry.layer for entry in result.plan.layers}
    assert not result.skipped
