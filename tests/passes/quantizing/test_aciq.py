"""`quantize --method aciq`: what is written is what `inspect` counts, on all kinds of layers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn import compress, quantize
from onnx_esn.errors import BudgetError, OptionError, PlanError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.weights import read_weight
from onnx_esn.numerics.esn import filter_bits
from onnx_esn.numerics.shifted_grid import shifted_values
from onnx_esn.passes.inspecting.inspection import inspect, total_cost
from onnx_esn.passes.layers.costs import measured_view
from onnx_esn.passes.quantizing.aciq import Aciq
from onnx_esn.passes.quantizing.quantization import Quantize
from onnx_esn.plans import QuantizationPlan, parse_plan
from tests.passes.tiny import graph, tensor, two_convs, weights


def read(model):
    constants = Constants(model)
    return {x.name: read_weight(x, constants) for x in measured_view(model).layers}


@pytest.mark.parametrize("quantizer", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_counted_is_what_is_written(quantizer, bits, dtype):
    model = two_convs(dtype=dtype)
    result = Aciq(bits=bits, quantizer=quantizer)(model)
    assert not result.skipped
    found = read(result.model)
    for entry in result.plan.layers:
        weight = found[entry.layer]
        assert weight.shifted is not None
        assert weight.filter_bits.tolist() == list(entry.bits)
        assert np.mean(entry.bits) <= bits
        # Codes, step and offset give the stored weights to the last bit.
        values = shifted_values(weight.shifted).astype(dtype)
        np.testing.assert_array_equal(values, weight.W)
    assert inspect(result.model).totals.esn_prime == result.details["cost_after"]
    assert sum(result.details["priors"].values()) == sum(
        b > 0 for entry in result.plan.layers for b in entry.bits
    )
    onnx.checker.check_model(result.model)


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_mean_and_norm_are_those_of_the_weights(bits):
    model = two_convs()
    before, after = read(model), read(Aciq(bits=bits)(model).model)
    for name, old in before.items():
        W, Q = old.W, after[name].W
        step = after[name].shifted.step
        # But for the offset's rounding to a part of the step.
        assert (np.abs(Q.mean(axis=1) - W.mean(axis=1)) <= step / 2048).all()
        np.testing.assert_allclose(Q.std(axis=1), W.std(axis=1), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.03, 0.25), st.integers(0, 50), st.booleans())
def test_budgets_are_met_from_below(share, seed, norm):
    model = two_convs(seed=seed, norm=norm)
    result = Aciq(target_cost=f"{100 * share}%")(model)
    details = result.details
    assert details["cost_after"] == total_cost(result.model) <= details["target"]
    assert details["target"] == pytest.approx(share * details["cost_before"])
    # One more bit for one filter, the dearest of which is of the first layer.
    assert details["cost_after"] > details["target"] - 3 * 9 * 36


def test_a_budget_too_small_is_refused():
    with pytest.raises(BudgetError, match="one filter of each layer"):
        Aciq(target_cost=100)(two_convs())


def test_a_budget_that_other_layers_take_says_so():
    model = Aciq(bits=8, only=("Conv_0",))(two_convs()).model
    stays = int(sum(x.esn_prime for x in inspect(model).layers if x.name != "Conv_3"))
    with pytest.raises(BudgetError, match=f"^a cost of 1,000 MAC.* stays as it is costs {stays:,}"):
        Aciq(target_cost=1000, only=("Conv_3",))(model)
    with pytest.raises(BudgetError, match=f"^a cost of {stays + 1:,} .*, and all else {stays:,}"):
        Aciq(target_cost=stays + 1, only=("Conv_3",))(model)


def test_the_norm_behind_scales_the_range():
    model = two_convs()
    for t in model.graph.initializer:
        if t.name == "gamma":
            gamma = tensor(model, "gamma") * np.array([64.0] + [1.0] * 7, np.float32)
            t.CopyFrom(onnx.numpy_helper.from_array(gamma, "gamma"))
    bits = Aciq(bits=4)(model).plan.layers[0].bits
    assert bits[0] > max(bits[1:])


def test_filters_of_equal_weights_take_a_bit():
    W = weights(6, 3, 3, 3)
    W[1], W[2], W[3] = 0.25, 0, -0.5
    model = graph([("Conv", ["x", "W"], ["y"], {})], {"x": ["N", 3, 5, 5]}, {"W": W})
    result = Aciq(bits=3)(model)
    bits = result.plan.layers[0].bits
    assert bits[1:4] == (1, 0, 1)
    Q = tensor(result.model, "W")
    for m in (1, 2, 3):
        np.testing.assert_array_equal(Q[m], W[m])
    assert read(result.model)["Conv_0"].filter_bits.tolist() == list(bits)


def test_filters_of_one_weight():
    W = weights(6, 1, 1, 1)
    model = graph([("Conv", ["x", "W"], ["y"], {"group": 6})], {"x": ["N", 6, 5, 5]}, {"W": W})
    result = Aciq(bits=4)(model)
    assert not result.plan.layers
    assert "too few weights" in result.skipped[0].reason
    np.testing.assert_array_equal(tensor(result.model, "W"), W)


def test_filters_far_from_zero_stay_near_their_weights():
    W = weights(8, 4, 3, 3) * 1e-3 + 1.0
    W[0] -= 1.0
    model = graph([("Conv", ["x", "W"], ["y"], {})], {"x": ["N", 4, 5, 5]}, {"W": W})
    result = Aciq(bits=8)(model)
    Q = tensor(result.model, "W")
    assert np.abs(Q - W).max() < 0.01
    assert read(result.model)["Conv_0"].filter_bits.tolist() == list(result.plan.layers[0].bits)


@pytest.mark.parametrize(
    ("nodes", "shapes", "W"),
    [
        ([("Gemm", ["x", "W"], ["y"], {})], {"x": ["N", 12]}, (12, 9)),
        ([("Gemm", ["x", "W"], ["y"], {"transB": 1})], {"x": ["N", 12]}, (9, 12)),
        ([("MatMul", ["x", "W"], ["y"], {})], {"x": ["N", 12]}, (12, 9)),
        ([("MatMul", ["W", "x"], ["y"], {})], {"x": [12, 3]}, (9, 12)),
        ([("ConvTranspose", ["x", "W"], ["y"], {"group": 2})], {"x": ["N", 4, 5, 5]}, (4, 3, 3, 3)),
        ([("Conv", ["x", "W"], ["y"], {"group": 2})], {"x": ["N", 4, 5, 5]}, (6, 2, 3, 3)),
        (
            [("Conv", ["x", "W"], ["a"], {}), ("Conv", ["a", "W"], ["y"], {})],
            {"x": ["N", 4, 7, 7]},
            (4, 4, 3, 3),
        ),
    ],
)
def test_every_kind_of_layer(nodes, shapes, W):
    model = graph(nodes, shapes, {"W": weights(*W)})
    result = Aciq(bits=3)(model)
    found = read(result.model)
    for entry in result.plan.layers:
        assert found[entry.layer].filter_bits.tolist() == list(entry.bits)
        assert max(entry.bits) > 0


def test_shared_and_constant_weights():
    node = onnx.helper.make_node(
        "Constant", [], ["W"], value=onnx.numpy_helper.from_array(weights(8, 4, 3, 3))
    )
    model = graph(
        [("Conv", ["x", "V"], ["y"], {})], {"x": ["N", 4, 5, 5]}, {"V": weights(8, 4, 3, 3)}
    )
    del model.graph.initializer[:]
    model.graph.node[0].input[1] = "W"
    model.graph.node.insert(0, node)
    result = Aciq(bits=3)(model)
    assert read(result.model)["Conv_0"].shifted is not None


@pytest.mark.parametrize("quantizer", ["mid-rise", "mid-tread"])
def test_half_precision_gets_no_shift_and_says_so(quantizer):
    model = two_convs(dtype=np.float16)
    result = Aciq(bits=4, quantizer=quantizer)(model)
    assert {s.node for s in result.skipped} == {"Conv_0", "Conv_3", "Gemm_6"}
    assert "float16 holds no shift" in result.skipped[0].reason
    found = read(result.model)
    for entry in result.plan.layers:
        assert entry.offset is None
        assert found[entry.layer].quantizer == quantizer
        assert found[entry.layer].filter_bits.tolist() == list(entry.bits)


def test_plans_are_replayed_to_the_last_byte(tmp_path):
    model = two_convs()
    result = Aciq(bits=3)(model)
    path = tmp_path / "plan.json"
    path.write_text(result.plan.to_json(), encoding="utf-8")
    again = Quantize(plan=path)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()
    assert again.details["cost_after"] == result.details["cost_after"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": [0.1] * 8}, "offsets must be multiples of 1/4096"),
        ({"offset": [0.5] * 3}, "has 3 numbers in 'offset'"),
    ],
)
def test_wrong_offsets_are_refused(change, message):
    import json

    document = json.loads(Aciq(bits=3)(two_convs()).plan.to_json())
    document["layers"][0] |= change
    with pytest.raises(PlanError, match=message):
        Quantize(plan=parse_plan(document, QuantizationPlan))(two_convs())


def test_offsets_need_single_precision():
    plan = Aciq(bits=3)(two_convs()).plan
    with pytest.raises(PlanError, match="float16 weights cannot hold offsets"):
        Quantize(plan=plan)(two_convs(dtype=np.float16))


def test_what_lies_on_a_grid_stays():
    once = Aciq(bits=3)(two_convs()).model
    again = Aciq(bits=2)(once)
    assert not again.modified
    assert {s.reason for s in again.skipped} == {"its weights lie on a grid already"}
    plain = Quantize(bits=2)(two_convs()).model
    assert not Aciq(bits=2)(plain).modified


def test_more_bits_are_nearer():
    model = two_convs()
    before = read(model)
    errors = []
    for bits in (2, 3, 4, 6, 8):
        after = read(Aciq(bits=bits)(model).model)
        errors.append(sum(((after[n].W - w.W) ** 2).sum() for n, w in before.items()))
    assert errors == sorted(errors, reverse=True)


def test_the_verbs():
    model = two_convs()
    x = np.random.default_rng(0).normal(size=(20, 3, 6, 6)).astype(np.float32)
    direct = quantize(model, bits=3, method="aciq")
    assert direct.model == Aciq(bits=3)(model).model
    # Images change nothing.
    assert quantize(model, bits=3, method="aciq", images=x).model == direct.model
    result = compress(model, x, target_cost="10%", method="aciq", latency=False)
    assert [name for name, _ in result.stages][:1] == ["quantize"]
    assert "recalibrate" not in dict(result.stages)
    assert result.evaluation is not None
    for options in ({"bits": 3, "target_cost": "5%"}, {}):
        with pytest.raises(OptionError, match="say how to quantize"):
            quantize(model, method="aciq", **options)
    with pytest.raises(OptionError, match="method aciq does not go with it"):
        quantize(model, method="aciq", plan=direct.plan)


def test_a_model_of_any_size_is_counted_in_codes():
    model = two_convs(batch="N")
    bits = filter_bits(read(Aciq(bits=1)(model).model)["Conv_0"].shifted.codes)
    assert set(bits) <= {0, 1, 2}
