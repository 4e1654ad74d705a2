from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from onnx_esn.calibration import CalibrationSet, input_specs, open_set
from onnx_esn.errors import PlanError
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.quantizing.compensated import CompensatedQuantization
from onnx_esn.passes.quantizing.compensation import Compensate
from onnx_esn.passes.quantizing.quantization import Quantize
from onnx_esn.plans import LayerQuantization, QuantizationPlan, load_plan
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import relative_difference, run, sizes_of
from tests.passes.layerwise.samples import (
    layer_of,
    smooth,
    some_images,
    stored,
    with_a_head_on_three_levels,
    with_a_recurrence,
    with_values,
)

Array = npt.NDArray[Any]
QUANTIZERS = pytest.mark.parametrize("quantizer", ["mid-rise", "mid-tread"])


def network(norm: bool = True, dtype: type = np.float32, seed: int = 1) -> onnx.ModelProto:
    """A small net with a residual block, on inputs that go together."""
    net = Net(3, 8, 8, seed=seed, dtype=dtype)

    def block(x: str, c: int, m: int, name: str, **attrs: Any) -> str:
        y = net.conv(x, c, m, name=name, bias=not norm, **attrs)
        return net.relu(net.bn(y, m) if norm else y)

    y = block("x", 3, 8, "a")
    z = block(y, 8, 8, "b")
    y = net.op("Add", block(z, 8, 8, "c", group=2), y)
    y = block(y, 8, 12, "d", strides=[2, 2])
    return net.model(net.head(y, 12, 5))


def compensate(
    model: onnx.ModelProto, images: CalibrationSet, **options: Any
) -> tuple[PassResult, PassResult]:
    """Rounded to nearest, and with compensation for the same bits."""
    plain = Quantize(**options)(model)
    assert isinstance(plain.plan, QuantizationPlan)
    return plain, Compensate(plain.plan, images, options=WalkOptions(batch_size=16))(model)


def plan_of(result: PassResult) -> QuantizationPlan:
    assert isinstance(result.plan, QuantizationPlan)
    return result.plan


def images_for(model: onnx.ModelProto, count: int = 24, seed: int = 0) -> CalibrationSet:
    x = smooth(count, seed=seed)
    (spec,) = input_specs(model)
    return open_set(x.astype(spec.dtype), [spec])


def divergence(reference: onnx.ModelProto, model: onnx.ModelProto) -> float:
    """Mean squared difference on images that were not calibrated with, relative to the variance."""
    x = {"x": smooth(64, seed=99)}
    wanted, got = (run(m, x)[0].astype(np.float64) for m in (reference, model))
    return float(((got - wanted) ** 2).mean() / wanted.var())


@pytest.mark.parametrize(
    ("quantizer", "norm", "bits"),
    [
        ("mid-rise", True, 2),
        ("mid-rise", False, 3),
        ("mid-tread", True, 3),
        ("mid-tread", False, 2),
    ],
)
def test_outputs_come_closer_than_with_nearest_rounding(
    quantizer: str, norm: bool, bits: int
) -> None:
    gained = []
    for seed in range(2):
        model = network(norm, seed=seed)
        plain, better = compensate(model, images_for(model), bits=bits, quantizer=quantizer)
        gained.append(divergence(model, better.model) / divergence(model, plain.model))
        assert better.details["compensated_layers"] == 5
        assert better.modified
    assert np.exp(np.log(gained).mean()) < 0.6
    assert max(gained) < 1.0


@QUANTIZERS
@pytest.mark.parametrize("options", [{"bits": 3}, {"target_cost": "9%"}], ids=["bits", "budget"])
def test_the_plan_replays_the_same_bytes(
    quantizer: str, options: dict[str, Any], tmp_path: Any
) -> None:
    model = network()
    _, result = compensate(model, images_for(model), quantizer=quantizer, **options)
    replayed = Quantize(plan=plan_of(result))(model)
    assert replayed.model.SerializeToString() == result.model.SerializeToString()
    path = tmp_path / "plan.json"
    path.write_text(plan_of(result).to_json(), encoding="utf-8")
    again = Quantize(plan=load_plan(path, QuantizationPlan))(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_the_same_bytes_again() -> None:
    model = network()
    before = model.SerializeToString()
    one, other = (compensate(model, images_for(model), bits=3)[1].model for _ in range(2))
    assert one.SerializeToString() == other.SerializeToString()
    assert model.SerializeToString() == before


@QUANTIZERS
@pytest.mark.parametrize("options", [{"bits": 3}, {"target_cost": "9%"}], ids=["bits", "budget"])
def test_the_model_read_back_has_the_bits_of_the_plan(
    quantizer: str, options: dict[str, Any]
) -> None:
    model = network()
    plain, result = compensate(model, images_for(model), quantizer=quantizer, **options)
    entries = {entry.layer: entry for entry in plan_of(result).layers}
    granted = {entry.layer: np.asarray(entry.bits) for entry in plan_of(plain).layers}
    for layer in inspect(result.model).layers:
        assert layer.quantized
        np.testing.assert_array_equal(layer.filter_bits, entries[layer.name].bits)
        assert (np.asarray(layer.filter_bits) <= granted[layer.name]).all()
        assert entries[layer.name].codes is not None
        np.testing.assert_array_equal(result.details["bits"][layer.name], layer.filter_bits)


def test_running_means_take_the_shift_and_no_node_is_added() -> None:
    model = network()
    _, result = compensate(model, images_for(model), bits=2)
    assert [n.op_type for n in result.model.graph.node] == [n.op_type for n in model.graph.node]
    norms = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    entries = {entry.layer: entry for entry in plan_of(result).layers}
    for name, norm in zip("abcd", norms, strict=True):
        shift = np.asarray(entries[name].bias)
        assert np.abs(shift).max() > 1e-4
        np.testing.assert_allclose(
            stored(result.model, norm.input[3]), stored(model, norm.input[3]) - shift, atol=1e-6
        )
        for slot in (1, 2, 4):
            np.testing.assert_array_equal(
                stored(result.model, norm.input[slot]), stored(model, norm.input[slot])
            )


def test_means_of_the_outputs_are_those_of_the_float_model() -> None:
    """On the calibration images, at the last layer: its shift sees all that came before."""
    model = network(norm=False)
    images = images_for(model, 64)
    _, result = compensate(model, images, bits=2)
    feeds = {"x": smooth(64)}
    wanted, got = (run(m, feeds)[0] for m in (model, result.model))
    np.testing.assert_allclose(got.mean(axis=0), wanted.mean(axis=0), atol=1e-4)


def test_half_precision() -> None:
    model = network(dtype=np.float16)
    images = images_for(model)
    plain, result = compensate(model, images, bits=3)
    replayed = Quantize(plan=plan_of(result))(model)
    assert replayed.model.SerializeToString() == result.model.SerializeToString()
    for layer in inspect(result.model).layers:
        assert layer.quantized
        assert max(layer.filter_bits) <= 3
    feeds = {"x": smooth(32, seed=5).astype(np.float16)}
    wanted, near, got = (
        run(m, feeds)[0].astype(np.float64) for m in (model, plain.model, result.model)
    )
    assert ((got - wanted) ** 2).mean() < ((near - wanted) ** 2).mean()


def test_one_very_weak_filter_does_not_cost_its_layer_the_codes() -> None:
    """Half precision cannot hold the codes of one filter apart: only that one is left plain."""

    def weaken(name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if name == "b.weight":
            value = value.copy()
            value[3] *= 3e-6
        return value

    model = with_values(network(dtype=np.float16), weaken)
    plain, result = compensate(model, images_for(model), bits=6)
    before = {entry.layer: entry for entry in plan_of(plain).layers}["b"]
    after = {entry.layer: entry for entry in plan_of(result).layers}["b"]
    assert after.codes is not None
    assert after.bits[3] == before.bits[3]
    assert after.step[3] == before.step[3]
    assert sum(x != y for x, y in zip(after.step, before.step, strict=True)) >= 6
    assert not [s for s in result.skipped if s.node == "b"]
    (layer,) = [x for x in inspect(result.model).layers if x.name == "b"]
    assert layer.quantized
    assert max(layer.filter_bits) <= 6


def test_shared_weights_are_compensated_once_for_all_uses() -> None:
    model = standard_form(MODELS["siamese"].build())
    _, result = compensate(model, some_images(model), bits=3)
    shared: dict[str, list[LayerQuantization]] = {}
    for entry in plan_of(result).layers:
        assert entry.codes is not None
        shared.setdefault(layer_of(model, entry.layer).weight, []).append(entry)
    assert max(map(len, shared.values())) == 2
    for entries in shared.values():
        assert len({(e.bits, e.step, e.codes) for e in entries}) == 1
    assert result.details["compensated_layers"] == len(plan_of(result).layers)
    replayed = Quantize(plan=plan_of(result))(model)
    assert replayed.model.SerializeToString() == result.model.SerializeToString()


@pytest.mark.parametrize("options", [{"bits": 3}, {"target_cost": "9%"}], ids=["bits", "budget"])
def test_a_shared_head_comes_closer_than_with_nearest_rounding(options: dict[str, Any]) -> None:
    gained = []
    for seed in range(2):
        model = with_a_head_on_three_levels(seed)
        plain, better = compensate(model, images_for(model, 96), **options)
        x = {"x": smooth(64, seed=99)}
        wanted, rough, fine = (run(m, x) for m in (model, plain.model, better.model))
        for want, a, b in zip(wanted, rough, fine, strict=True):
            gained.append(float(((b - want) ** 2).mean() / ((a - want) ** 2).mean()))
    assert np.exp(np.log(gained).mean()) < 0.5
    assert max(gained) < 1.0


def test_a_recurrence_comes_closer_than_with_nearest_rounding() -> None:
    model = with_a_recurrence(3)
    plain, better = compensate(model, images_for(model), bits=3)
    entries = {entry.layer: entry for entry in plan_of(better).layers}
    assert len({entries[f"turn.{i}"].codes for i in range(3)}) == 1
    assert entries["turn.0"].codes is not None
    assert len({entries[f"turn.{i}"].bias for i in range(3)}) == 3
    assert better.details["compensated_layers"] == 5
    assert divergence(model, better.model) < 0.6 * divergence(model, plain.model)


def test_a_budget_is_met_with_a_shared_head() -> None:
    model = with_a_head_on_three_levels(0)
    result = CompensatedQuantization(images_for(model), target_cost="9%", effort="fast")(model)
    target = result.details["target"]
    assert 0.97 * target <= result.details["cost_after"] <= target


def test_weights_that_lie_on_a_grid_stay_untouched() -> None:
    model = network(norm=False)
    codes = np.random.default_rng(0).integers(-4, 4, (8, 8, 3, 3)) + 0.5
    on_grid = with_values(model, lambda n, v: codes * 0.03 if n == "b.weight" else v)
    _, result = compensate(on_grid, images_for(model), bits=3)
    np.testing.assert_array_equal(stored(result.model, "b.weight"), stored(on_grid, "b.weight"))
    entries = {entry.layer: entry for entry in plan_of(result).layers}
    assert entries["b"].codes is None
    assert entries["b"].bias is None
    assert result.details["compensated_layers"] == 4


def test_codes_that_a_plan_brings_stay() -> None:
    """A second run with the first one's plan has nothing left to do."""
    model = network()
    images = images_for(model)
    _, result = compensate(model, images, bits=3)
    again = Compensate(plan_of(result), images)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()
    assert again.details["compensated_layers"] == 0


def test_layers_that_the_plan_leaves_out_stay() -> None:
    model = network()
    plain = Quantize(bits=3, exclude=("b", "gemm*"))(model)
    result = Compensate(plan_of(plain), images_for(model))(model)
    for weight in ("b.weight", layer_of(model, model.graph.node[-1].name).weight):
        np.testing.assert_array_equal(stored(result.model, weight), stored(model, weight))
    assert result.details["compensated_layers"] == 3


def test_filters_at_zero_bits_go_and_their_mean_stays() -> None:
    model = network(norm=False)
    plain = plan_of(Quantize(bits=3)(model))
    entries = []
    for entry in plain.layers:
        bits = tuple(0 if i == 1 else b for i, b in enumerate(entry.bits))
        entries.append(LayerQuantization(entry.layer, bits, entry.step))
    result = Compensate(QuantizationPlan(tuple(entries)), images_for(model))(model)
    assert not stored(result.model, "b.weight")[1].any()
    assert stored(result.model, "b.weight")[0].any()
    assert {e.bits[1] for e in plan_of(result).layers} == {0}
    assert {e.step[1] for e in plan_of(result).layers} == {0.0}


def test_layers_that_cannot_be_followed_are_rounded_to_nearest() -> None:
    model = standard_form(MODELS["gemm_chain"].build())  # alpha is not 1
    plain, result = compensate(model, some_images(model), bits=3)
    notes = {s.node: s.reason for s in result.skipped}
    assert "rounded to nearest" in notes["fc"]
    weight = layer_of(model, "fc").weight
    np.testing.assert_array_equal(stored(result.model, weight), stored(plain.model, weight))


@pytest.mark.parametrize("name", ["einsum_as_pointwise_conv", "einsum_as_gemm", "einsum"])
def test_a_plan_that_names_an_einsum(name: str) -> None:
    """It is a layer only where shapes are known, as `Quantize` knows them."""
    model = standard_form(MODELS[name].build())
    plain, result = compensate(model, some_images(model), bits=3)
    assert {e.layer for e in plan_of(plain).layers} == {e.layer for e in plan_of(result).layers}
    assert any("rounded to nearest" in s.reason for s in result.skipped)
    replayed = Quantize(plan=plan_of(result))(model)
    assert replayed.model.SerializeToString() == result.model.SerializeToString()


def test_statistics_that_two_norms_share_are_parted() -> None:
    model = standard_form(MODELS["tied_batchnorm_vectors"].build())
    _, result = compensate(model, some_images(model, 20), bits=3)
    feeds = feeds_for(model, sizes_of(model))
    assert relative_difference(run(model, feeds), run(result.model, feeds)) < 1
    norms = [n for n in result.model.graph.node if n.op_type == "BatchNormalization"]
    means = [n.input[3] for n in norms]
    assert len(set(means)) == len(means)


def test_another_reference_is_what_the_outputs_come_close_to() -> None:
    reference = network()
    rng = np.random.default_rng(0)
    model = with_values(
        reference, lambda n, v: v * rng.normal(1, 0.15, v.shape) if v.ndim > 1 else v
    )
    images = images_for(model)
    plan = plan_of(Quantize(bits=6)(model))
    own = Compensate(plan, images)(model)
    theirs = Compensate(plan, images, reference)(model)
    gaps = [divergence(reference, result.model) for result in (own, theirs)]
    assert gaps[1] < 0.5 * gaps[0]


def test_plans_for_another_model_are_refused() -> None:
    model = network()
    plan = QuantizationPlan((LayerQuantization("nobody", (3,), (1.0,)),))
    with pytest.raises(PlanError, match="nobody"):
        Compensate(plan, images_for(model))(model)
