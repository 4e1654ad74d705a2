from __future__ import annotations

import numpy as np
import pytest

from onnx_esn.errors import OptionError, PlanError
from onnx_esn.numerics.esn import filter_bits
from onnx_esn.numerics.midrise import encode
from onnx_esn.passes.quantizing.quantization import Quantize
from onnx_esn.plans import LayerQuantization, QuantizationPlan, encode_codes, load_plan
from tests.passes.tiny import tensor, two_convs


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 3},
        {"target_cost": "10%"},
        {"bits": 3, "quantizer": "mid-tread"},
        {"target_cost": "10%", "quantizer": "mid-tread"},
    ],
)
def test_a_plan_replays_the_same_bytes(options, tmp_path):
    model = two_convs()
    result = Quantize(**options)(model)
    path = tmp_path / "plan.json"
    path.write_text(result.plan.to_json(), encoding="utf-8")
    replayed = Quantize(plan=path)(model)
    assert replayed.model.SerializeToString() == result.model.SerializeToString()
    assert replayed.plan == result.plan == load_plan(path, QuantizationPlan)
    assert replayed.details["cost_after"] == result.details["cost_after"]


def test_a_plan_for_some_layers_leaves_the_others():
    model = two_convs()
    entry = LayerQuantization("Gemm_6", (3, 0, 3, 3), (0.5, 0.0, 0.5, 99.0))
    result = Quantize(plan=QuantizationPlan((entry,)))(model)
    codes = encode(tensor(model, "W3"), np.array(entry.step), np.array(entry.bits))
    np.testing.assert_array_equal(
        tensor(result.model, "W3"), (np.array(entry.step)[:, None] * codes).astype(np.float32)
    )
    assert filter_bits(codes)[3] == 0  # all within ±Δ/2
    np.testing.assert_array_equal(tensor(result.model, "W1"), tensor(model, "W1"))
    assert {s.node for s in result.skipped} == {"Conv_0", "Conv_3"}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (("Gemm_5", (3,) * 4, (1.0,) * 4), "Gemm_6"),
        (("Gemm_6", (3,) * 3, (1.0,) * 3), "4 filters"),
        (("Gemm_6", (3,) * 4, (1.0,) * 3), "'step'"),
        (("Gemm_6", (9,) * 4, (1.0,) * 4), "0 to 8"),
        (("Gemm_6", (3,) * 4, (1.0, 0.0, 1.0, 1.0)), "above 0"),
        (("Gemm_6", (3,) * 4, (1.0, -1.0, 1.0, 1.0)), "above 0"),
    ],
)
def test_plans_that_do_not_fit(entry, words):
    with pytest.raises(PlanError, match=words):
        Quantize(plan=QuantizationPlan((LayerQuantization(*entry),)))(two_convs())


def test_a_plan_names_a_layer_once():
    entry = LayerQuantization("Gemm_6", (3,) * 4, (1.0,) * 4)
    with pytest.raises(PlanError, match="twice"):
        Quantize(plan=QuantizationPlan((entry, entry)))(two_convs())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bits": 4, "target_cost": "10%"},
        {"bits": 0},
        {"bits": 9},
        {"bits": True},
        {"target_cost": "0%"},
        {"plan": QuantizationPlan(()), "exclude": ("a",)},
        {"plan": QuantizationPlan(()), "only": ("a",)},
    ],
)
def test_options_that_contradict(options):
    with pytest.raises(OptionError):
        Quantize(**options)


def test_an_unknown_quantizer():
    with pytest.raises(PlanError, match="'rounding' is not known; there are: mid-rise, mid-tread"):
        Quantize(plan=QuantizationPlan((), quantizer="rounding"))(two_convs())


def coded(codes, bits=(3,) * 4, step=(0.5,) * 4, bias=None):
    return LayerQuantization("Gemm_6", bits, step, encode_codes(codes), bias)


@pytest.mark.parametrize("quantizer", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("offset", [0.5, 0.0])
def test_a_plan_can_bring_its_codes(quantizer, offset, tmp_path):
    codes = np.random.default_rng(0).integers(-3, 3, (4, 8)) + offset
    codes[2] = 0
    path = tmp_path / "plan.json"
    plan = QuantizationPlan((coded(codes, bias=(1.0, 2.0, 3.0, 4.0)),), quantizer=quantizer)
    path.write_text(plan.to_json(), encoding="utf-8")
    result = Quantize(plan=path)(two_convs())
    assert result.plan == plan
    np.testing.assert_array_equal(tensor(result.model, "W3"), (codes * 0.5).astype(np.float32))
    bias = tensor(two_convs(), "bias") + np.float32([1, 2, 3, 4])
    third = next(n for n in result.model.graph.node if "W3" in n.input)
    np.testing.assert_array_equal(tensor(result.model, third.input[2]), bias)
    assert result.details["filters"] == 4
    assert result.details["pruned_filters"] == 1


def test_codes_equal_to_those_of_the_quantizer_change_nothing():
    model = two_convs()
    result = Quantize(bits=3)(model)
    entry = result.plan.layers[2]
    codes = encode(tensor(model, "W3"), np.array(entry.step), np.array(entry.bits))
    plan = QuantizationPlan((*result.plan.layers[:2], coded(codes, entry.bits, entry.step)))
    assert Quantize(plan=plan)(model).model.SerializeToString() == result.model.SerializeToString()


HALVES = np.full((4, 8), 1.5)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (coded(HALVES[:, :5]), "'Gemm_6': it has codes for 20 weights, and the layer has 4×8"),
        (coded(HALVES, bits=(2, 2, 1, 2)), "'Gemm_6', filter 2: its codes take 2 bits"),
        (coded(HALVES, bits=(2, 2, 2, 0)), "'Gemm_6', filter 3: .* gives it 0"),
        (coded(HALVES - np.eye(4, 8) / 2), "'Gemm_6', filter 0: its codes are on no grid"),
        (LayerQuantization("Gemm_6", (3,) * 4, (1.0,) * 4, "?"), "'Gemm_6': .* not base64"),
        (LayerQuantization("Gemm_6", (3,) * 4, (1.0,) * 4, None, (1.0,)), "'bias'"),
    ],
)
def test_codes_that_do_not_fit(entry, words):
    with pytest.raises(PlanError, match=words):
        Quantize(plan=QuantizationPlan((entry,)))(two_convs())
