from __future__ import annotations

import numpy as np
import pytest

from onnx_esn.errors import OptionError, PlanError
from onnx_esn.numerics.esn import filter_bits
from onnx_esn.numerics.midrise import encode
from onnx_esn.passes.quantization import Quantize
from onnx_esn.plans import LayerQuantization, QuantizationPlan, load_plan
from tests.passes.tiny import tensor, two_convs


@pytest.mark.parametrize("options", [{"bits": 3}, {"target_cost": "10%"}])
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
