from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from onnx_esn.calibration import CalibrationSet, input_specs, open_set
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.correcting.reconstruction import Reconstruct
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.quantizing.compensated import CompensatedQuantization
from onnx_esn.passes.quantizing.quantization import Quantize
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import run, sizes_of
from tests.passes.layerwise.samples import (
    layer_names,
    smooth,
    some_images,
    spoilt,
    stored,
    with_a_head_on_three_levels,
    with_a_recurrence,
    with_values,
)

Array = npt.NDArray[Any]


def images_for(model: onnx.ModelProto, count: int = 32, seed: int = 0) -> CalibrationSet:
    return open_set(smooth(count, seed=seed), input_specs(model))


def gap(reference: onnx.ModelProto, model: onnx.ModelProto) -> float:
    """Mean squared difference on held-out images, relative to the variance."""
    x = {"x": smooth(48, seed=77)}
    wanted, got = (run(m, x)[0].astype(np.float64) for m in (reference, model))
    return float(((got - wanted) ** 2).mean() / wanted.var())


def redundant(norm: bool) -> onnx.ModelProto:
    """Each filter of two layers is there twice, with a little noise and of another size."""
    net = Net(3, 8, 8, seed=2)
    y = "x"
    for c, m, name in ((3, 16, "a"), (16, 16, "b")):
        y = net.conv(y, c, m, name=name, bias=not norm)
        y = net.relu(net.bn(y, m) if norm else y)
    model = net.model(net.head(net.relu(net.conv(y, 16, 4, name="c")), 4))
    rng = np.random.default_rng(0)

    def double(name: str, value: Array) -> Array:
        if value.shape[:1] != (16,):
            return value
        value = value.copy()
        noise = 1 + 0.002 * rng.normal(size=value[8:].shape)
        value[8:] = value[:8] * noise
        return value

    return with_values(model, double)


@pytest.mark.parametrize("norm", [True, False], ids=["kept", "folded"])
def test_what_redundant_filters_said_comes_back_from_the_others(norm: bool) -> None:
    model = redundant(norm)
    images = images_for(model)
    # Of each pair one goes, so that all that was said can still be said.
    every = with_values(
        model, lambda n, v: np.concatenate([v[:8], v[8:] * 0.9]) if n in ("a.weight", "b.weight")
        else v
    )  # fmt: skip
    pruned = Prune(ratio=0.5, only=("a", "b"), absorb="none", criterion="l1-norm")(every).model
    assert stored(pruned, "b.weight").shape == (8, 8, 3, 3)
    result = Reconstruct(images, every)(pruned)
    assert result.modified
    assert result.details == {"refitted_layers": 4}
    assert gap(every, result.model) < 0.02
    assert gap(every, result.model) < 0.05 * gap(every, pruned)


def network(norm: bool = True, seed: int = 3) -> onnx.ModelProto:
    net = Net(3, 8, 8, seed=seed)

    def block(x: str, c: int, m: int, name: str, **attrs: Any) -> str:
        y = net.conv(x, c, m, name=name, bias=not norm, **attrs)
        return net.relu(net.bn(y, m) if norm else y)

    y = block("x", 3, 12, "a")
    z = block(block(y, 12, 12, "b"), 12, 12, "c")
    y = block(net.op("Add", z, y), 12, 12, "d", group=12)
    y = block(y, 12, 16, "e", strides=[2, 2])
    return net.model(net.head(y, 16, 5))


@pytest.mark.parametrize("norm", [True, False], ids=["kept", "folded"])
@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_a_sliced_model_comes_closer_to_the_float_one(norm: bool, ratio: float) -> None:
    gained = []
    for seed in range(2):
        model = network(norm, seed)
        images = images_for(model)
        pruned = Prune(ratio=ratio, images=images)(model).model
        result = Reconstruct(images, model, options=WalkOptions(batch_size=16))(pruned)
        onnx.checker.check_model(result.model, full_check=True)
        gained.append(gap(model, result.model) / gap(model, pruned))
        assert [n.op_type for n in result.model.graph.node] == [
            n.op_type for n in pruned.graph.node
        ]
    assert max(gained) < 1.0
    assert np.exp(np.log(gained).mean()) < 0.7


def test_a_shared_head_is_refitted_once_for_all_levels() -> None:
    gained = []
    for seed in range(2):
        model = with_a_head_on_three_levels(seed)
        pruned = Prune(ratio=0.4)(model).model
        result = Reconstruct(images_for(model, 96), model)(pruned)
        x = {"x": smooth(64, seed=99)}
        wanted, before, after = (run(m, x) for m in (model, pruned, result.model))
        for want, a, b in zip(wanted, before, after, strict=True):
            gained.append(float(((b - want) ** 2).mean() / ((a - want) ** 2).mean()))
        assert result.details["refitted_layers"] == 9
        for name in ("head.0", "head.1"):
            readers = [n for n in result.model.graph.node if name in n.input]
            assert len(readers) == 3
            assert not np.array_equal(stored(result.model, name), stored(pruned, name))
    assert max(gained) < 1.0
    assert np.exp(np.log(gained).mean()) < 0.7


def products(seed: int = 0, *, bias: bool = True) -> onnx.ModelProto:
    """Two-layer perceptrons on the channels of each place, in residual branches."""
    net = Net(3, 8, 8, seed=seed)
    y = net.op("Transpose", net.relu(net.conv("x", 3, 8, name="in")), perm=[0, 2, 3, 1])
    for i in range(2):
        h = net.op("MatMul", y, net.weight(8, 16, fan_in=8), name=f"up.{i}")
        h = net.relu(net.op("Add", net.weight(16, fan_in=4), h) if bias else h)
        h = net.op("MatMul", h, net.weight(16, 8, fan_in=16), name=f"down.{i}")
        y = net.op("Add", y, net.op("Add", net.weight(8, fan_in=4), h) if bias else h)
    y = net.op("MatMul", net.relu(y), net.weight(8, 5, fan_in=8), name="last")
    return standard_form(net.model(y))


def norms_at_the_end(seed: int = 0) -> onnx.ModelProto:
    net = Net(3, 8, 8, seed=seed)
    y = net.relu(net.bn(net.conv("x", 3, 12, name="in"), 12))
    return standard_form(net.model(net.bn(net.conv(y, 12, 5, name="last"), 5)))


@pytest.mark.parametrize("make", [products, norms_at_the_end])
def test_means_are_added_once_by_whatever_was_done_before(make: Any) -> None:
    """Pruning puts means behind layers, and so does a refit: another one counts them."""
    model = make()
    images = images_for(model, 48)
    pruned = Prune(ratio=0.4, images=images)(model).model
    once = Reconstruct(images, model)(pruned).model
    twice = Reconstruct(images, model)(once).model
    eight = CompensatedQuantization(images, bits=8, reference=model, rotate=False)(once).model
    x = {"x": smooth(48)}
    wanted = run(model, x)[0]
    axes = (0, 1, 2) if make is products else (0, 2, 3)
    for result in (once, twice, eight):
        apart = (run(result, x)[0] - wanted).mean(axis=axes)
        assert np.abs(apart).max() < 2e-3 * wanted.std()


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_gets_one_add_at_most(bias: bool) -> None:
    model = products(bias=bias)
    images = images_for(model, 48)
    pruned = Prune(ratio=0.4, images=images)(model).model
    once = Reconstruct(images, model)(pruned).model
    twice = Reconstruct(images, model)(once).model
    most = len(model.graph.node) + (1 if bias else 5)
    assert len(pruned.graph.node) <= len(once.graph.node) == len(twice.graph.node) <= most


def test_a_recurrence_stays_and_what_lies_between_its_turns_is_refitted() -> None:
    model = with_a_recurrence(2, between=True)
    pruned = Prune(ratio=0.25)(model).model
    result = Reconstruct(images_for(model), model)(pruned)
    assert result.details["refitted_layers"] == 4
    assert {s.node for s in result.skipped} == {"turn.0", "turn.1"}
    assert all("follow one another" in s.reason for s in result.skipped)
    np.testing.assert_array_equal(stored(result.model, "turn"), stored(pruned, "turn"))
    assert gap(model, result.model) < gap(model, pruned)


def test_a_model_that_was_pruned_twice_is_paired_by_what_is_recorded() -> None:
    model = network()
    images = images_for(model)
    once = Prune(ratio=0.25)(model).model
    twice = Prune(ratio=0.25)(once).model
    for reference in (model, once):
        result = Reconstruct(images, reference)(twice)
        assert result.details["refitted_layers"] == 6
        assert gap(reference, result.model) < gap(reference, twice)


def test_the_reference_itself_stays_nearly_as_it_is() -> None:
    model = network()
    result = Reconstruct(images_for(model), model)(model)
    assert gap(model, result.model) < 1e-8


def test_spoilt_weights_come_back() -> None:
    model = network(norm=False)
    bad = spoilt(model, "a", "c", "d", scale=0.5)
    result = Reconstruct(images_for(model), model)(bad)
    assert gap(model, result.model) < 0.1 * gap(model, bad)


def test_results_repeat_and_arguments_stay() -> None:
    model = network()
    pruned = Prune(ratio=0.5)(model).model
    before = model.SerializeToString(), pruned.SerializeToString()
    one, other = (Reconstruct(images_for(model), model)(pruned).model for _ in range(2))
    assert one.SerializeToString() == other.SerializeToString()
    assert (model.SerializeToString(), pruned.SerializeToString()) == before


@pytest.mark.parametrize(
    ("options", "left"),
    [({"exclude": ("a", "e")}, {"a", "e"}), ({"only": ("b",)}, {"a", "c", "d", "e"})],
)
def test_layers_that_are_excluded_stay(options: dict[str, Any], left: set[str]) -> None:
    model = network()
    pruned = Prune(ratio=0.5)(model).model
    result = Reconstruct(images_for(model), model, **options)(pruned)
    for name in "abcde":
        same = np.array_equal(
            stored(result.model, f"{name}.weight"), stored(pruned, f"{name}.weight")
        )
        assert same == (name in left)


def test_layers_on_a_grid_stay() -> None:
    model = network(norm=False)
    quantized = Quantize(bits=3, only=("b",))(model).model
    result = Reconstruct(images_for(model), model)(quantized)
    np.testing.assert_array_equal(stored(result.model, "b.weight"), stored(quantized, "b.weight"))
    assert result.details["refitted_layers"] == 5


@pytest.mark.parametrize("name", ["siamese", "gemm_chain", "fixed_batch_of_three", "half_precision",
    "weight_through_transpose", "tied_batchnorm_vectors", "initializers_are_inputs"])  # fmt: skip
def test_storage_of_every_kind(name: str) -> None:
    """What can be refitted is, the rest is named; the result is a valid model that runs."""
    reference = standard_form(MODELS[name].build())
    model = spoilt(reference, "a")
    result = Reconstruct(some_images(model, 21), reference)(model)
    onnx.checker.check_model(result.model, full_check=True)
    assert result.details["refitted_layers"] + len(result.skipped) >= 1
    feeds = feeds_for(model, sizes_of(model, batch=3), seed=8)
    wanted, before, after = (
        run(m, feeds)[0].astype(np.float64) for m in (reference, model, result.model)
    )
    if result.details["refitted_layers"]:
        assert np.abs(after - wanted).max() <= np.abs(before - wanted).max() + 1e-3
    else:
        np.testing.assert_array_equal(before, after)


def test_what_is_skipped_is_named() -> None:
    model = standard_form(MODELS["gemm_chain"].build())
    result = Reconstruct(some_images(model), model)(model)
    assert {s.node for s in result.skipped} == {"fc"}
    assert "not refitted" in result.skipped[0].reason
    assert "a" in layer_names(model)
