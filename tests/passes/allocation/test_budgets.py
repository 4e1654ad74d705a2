"""Widths and bits for a budget: met from below, better where there is more, judged honestly."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import onnx
import pytest

from onnx_esn.calibration import CalibrationSet, open_set
from onnx_esn.errors import BudgetError, OptionError
from onnx_esn.passes.allocation.efforts import EFFORTS, judging_images
from onnx_esn.passes.allocation.filter_errors import filter_errors
from onnx_esn.passes.allocation.joint import decide
from onnx_esn.passes.allocation.measuring import Losses, measure_losses, with_all_images
from onnx_esn.passes.allocation.removal import remove_classes
from onnx_esn.passes.allocation.sensitivity import (
    PROBED,
    Prober,
    change_to,
    rough_weights,
    sensitivities,
)
from onnx_esn.passes.allocation.trial import Trial, best_of
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.correcting.output_divergence import Judged
from onnx_esn.passes.correcting.reconstruction import Reconstruct
from onnx_esn.passes.layers.costs import measured_view, total_cost, total_macs
from onnx_esn.passes.layerwise.input_moments import input_moments
from onnx_esn.passes.layerwise.observation import observe
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.quantizing.aciq import Aciq
from onnx_esn.passes.quantizing.compensated import CompensatedQuantization
from onnx_esn.passes.quantizing.quantization import Quantize
from onnx_esn.plans import PruningPlan, QuantizationPlan
from tests.models import MODELS
from tests.net import Net
from tests.passes.layerwise.samples import layer_names, some_images
from tests.passes.quantizing.test_compensation import divergence, images_for, network

OPTIONS = WalkOptions(batch_size=16)


@lru_cache
def model() -> onnx.ModelProto:
    return network()


@lru_cache
def images() -> CalibrationSet:
    return images_for(model(), 40)


@lru_cache
def losses() -> Losses:
    return measure_losses(model(), images(), passes=4, options=OPTIONS)


@pytest.mark.parametrize("backward", [False, True])
def test_sensitivity_predicts_what_an_error_does(backward: bool):
    moments = input_moments(model(), observe(model(), images(), layer_names(model()), OPTIONS))
    prober = Prober(model(), moments, images(), batch_size=16)
    predicted = {}
    rough = {name: rough_weights(m) for name, m in moments.items()}
    if backward:
        changes = {name: [change_to(m, rough[name])] for name, m in moments.items()}
        predicted = filter_errors(model(), changes, images())
        assert set(predicted) == set(moments)
    sensitivity = sensitivities(prober, rough, predicted)
    found = sensitivity.layers
    assert set(found) == set(moments)
    assert min(found.values()) > 0
    assert set(sensitivity.filters) == set(predicted)
    for name, counts in sensitivity.filters.items():
        errors = moments[name].errors(rough[name]).reshape(-1)
        assert (counts * errors).sum() == pytest.approx(errors.sum(), rel=0.02)
    rng = np.random.default_rng(0)
    for name, m in moments.items():
        noise = 0.05 * m.W.std() * rng.normal(size=m.W.shape)
        expected = found[name] * m.error(m.W + noise) / m.energy
        measured = prober.divergence({name: m.W + noise})
        assert 0.1 < measured / expected < 10  # other errors, of another size
    assert prober.divergence({}) < 1e-12  # and the weights are back


def test_few_layers_are_probed_where_all_are_predicted():
    net = Net(3, 8, 8)
    x = net.conv("x", 3, 4)
    for _ in range(12):
        x = net.relu(net.conv(x, 4, 4))
    deep = net.model(net.head(x, 4))
    seen = images_for(deep, 12)
    moments = input_moments(deep, observe(deep, seen, layer_names(deep), OPTIONS))
    rough = {name: rough_weights(m) for name, m in moments.items()}
    changes = {name: [change_to(m, rough[name])] for name, m in moments.items()}
    predicted = filter_errors(deep, changes, seen)
    some = dict(list(predicted.items())[:-2])
    for known, expected in ((predicted, PROBED), (some, PROBED + 2), ({}, len(moments))):
        done: list[tuple[int, int]] = []
        prober = Prober(deep, moments, seen, batch_size=16)
        found = sensitivities(prober, rough, known, lambda *x, to=done: to.append(x))
        assert done[-1] == (expected, expected)
        assert set(found.layers) == set(moments)


def test_images_that_judge_decide_nothing():
    """Other pixels in the images held apart leave every loss as it is, until nothing is judged."""
    held = judging_images(images(), "balanced", prune=True)
    assert len(held) == 8
    (spec,) = images().inputs
    pixels = np.concatenate([b.feeds[spec.name] for b in images().batches(8)])
    others = pixels.copy()
    others[held] = 3.0 * np.random.default_rng(0).normal(size=others[held].shape)
    found = []
    for x in (pixels, others):
        seen = open_set(x, [spec])
        found.append(measure_losses(model(), seen, passes=4, options=OPTIONS, held=held))
    one, other = found
    assert one.weights.layers == other.weights.layers
    for a, b in zip(one.curves, other.curves, strict=True):
        assert np.array_equal(a.curve.order, b.curve.order)
        assert np.array_equal(a.curve.loss, b.curve.loss)
    all_bits = with_all_images(one).bits, with_all_images(other).bits
    for name, loss in one.bits.items():
        assert np.array_equal(loss, other.bits[name])
        assert not np.allclose(all_bits[0][name], all_bits[1][name], rtol=1e-3), name
    assert with_all_images(losses()) is losses()


def test_when_images_judge():
    few = images().take(9)
    assert judging_images(images(), "thorough", prune=True)
    for found in (
        judging_images(few, "balanced", prune=True),
        judging_images(images(), "fast", prune=True),
        judging_images(images(), "balanced", prune=False),
    ):
        assert found == []


@pytest.mark.parametrize("bits", [1.0, 1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("scale", [np.inf, 1.0])
def test_a_decision_costs_what_it_says_and_no_more_than_it_may(bits: float, scale: float):
    budget = bits * total_macs(model())
    found = decide(losses(), budget, prune_scale=scale)
    assert found.cost <= budget
    pruned, left = remove_classes(losses().analysis, found.gone, losses().moments)
    cost = 0.0
    for layer in measured_layers(pruned.model):
        b = found.bits[layer.name]
        b = b[left[layer.name]] if b.size != layer.filters else b
        cost += layer.macs_per_filter * int(b.sum())
    assert cost == pytest.approx(found.cost)
    assert found.cost >= 0.9 * budget  # a few filters: one bit is a large step
    if np.isinf(scale):
        assert not found.gone.size


def measured_layers(model: onnx.ModelProto):
    return measured_view(model).layers


def test_more_budget_loses_less():
    macs = total_macs(model())
    found = [decide(losses(), bits * macs).loss for bits in (0.8, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0)]
    assert found == sorted(found, reverse=True)


def test_a_budget_below_all_that_can_be_reached():
    with pytest.raises(BudgetError, match="cannot be reached"):
        decide(losses(), 1.0)
    stay = replace(losses(), droppable={})
    with pytest.raises(BudgetError, match="cannot be reached"):
        decide(stay, 0.9 * total_macs(model()), prune_scale=np.inf)  # a bit for each weight


@pytest.mark.parametrize("target", ["2.8%", "4%", "7%", "12%"])
def test_the_result_meets_the_budget_and_replays(target: str):
    step = CompensatedQuantization(
        images(), target_cost=target, prune=True, effort="fast", walk=OPTIONS
    )
    stages = dict(step.stages(model()))
    result = step(model())
    budget = float(target[:-1]) / 100 * total_cost(model())
    assert 0.9 * budget <= total_cost(result.model) <= budget
    assert result.details["cost_after"] == total_cost(result.model)
    assert result.model == list(stages.values())[-1].model  # the same bytes again
    replayed = model()
    if "prune" in stages:
        assert isinstance(stages["prune"].plan, PruningPlan)
        replayed = Prune(plan=stages["prune"].plan)(replayed).model
    assert isinstance(result.plan, QuantizationPlan)
    assert Quantize(plan=result.plan)(replayed).model == stages["quantize"].model


def test_allocated_bits_beat_uniform_ones():
    for bits in (1, 2, 3):
        uniform = CompensatedQuantization(images(), bits=bits, walk=OPTIONS)(model()).model
        allocated = CompensatedQuantization(
            images(), target_cost=bits * total_macs(model()), walk=OPTIONS
        )(model()).model
        assert total_cost(allocated) <= total_cost(uniform)
        assert divergence(model(), allocated) < divergence(model(), uniform)


def test_the_best_trial_is_kept():
    step = CompensatedQuantization(
        images(), target_cost="5%", prune=True, effort="thorough", walk=OPTIONS
    )
    details = step(model()).details
    assert len(details["trials"]) > 1
    least = min(details["trials"], key=lambda t: t["divergence"])
    whole = next(t for t in details["trials"] if t["macs"] is None)
    assert details["divergence"] in (least["divergence"], whole["divergence"])


def test_widths_alone_at_given_bits():
    target = 0.6 * 8 * total_macs(model())
    step = CompensatedQuantization(
        images(), bits=8, target_cost=target, effort="fast", walk=OPTIONS
    )
    stages = dict(step.stages(model()))
    assert stages["prune"].details["macs_after"] < total_macs(model())
    assert 0.8 * target <= total_cost(stages["quantize"].model) <= target  # a channel is much here


def test_locked_layers_keep_their_channels():
    step = CompensatedQuantization(
        images(), target_cost="4%", prune=True, effort="fast", exclude=("b*",), walk=OPTIONS
    )
    before = {x.name: x.filters for x in measured_layers(model())}
    names = [name for name in before if name.startswith("b")]
    assert names
    with pytest.raises(BudgetError):  # what is excluded costs 32 bits
        step(model())


def test_what_a_width_loses_only_grows():
    assert losses().curves
    for found in losses().curves:
        assert (np.diff(found.curve.loss) >= 0).all()


def pointwise() -> onnx.ModelProto:
    """The second convolution reads one weight for each channel of the first."""
    net = Net(3, 8, 8)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.conv(y, 8, 12, 1, name="b"))
    y = net.relu(net.conv(y, 12, 4, name="c"))
    return net.model(net.head(y, 4, 5))


@pytest.mark.parametrize("more", [1.001, 1.3, 2.0])
def test_filters_of_few_weights_are_not_made(more: float):
    """No grid shows in them: they would cost 32 bits, not the one that was paid for."""
    small, data = pointwise(), images_for(pointwise(), 40)
    options = {"effort": "fast", "prune": True, "walk": OPTIONS}
    found = measure_losses(small, data, passes=2, options=OPTIONS)
    widths = {c.group: c.least for c in found.curves}
    assert [widths[g] for g in sorted(widths)] == [4, 1, 4]  # the Gemm reads one of "c" each
    with pytest.raises(BudgetError, match="cheapest widths and bits cost") as error:
        decide(found, 1.0)
    least = math.ceil(float(str(error.value).split("bits cost ")[1].split(".")[0]) * more)
    result = CompensatedQuantization(data, target_cost=least, **options)(small)
    assert result.details["cost_after"] == total_cost(result.model) <= least
    # Who only prunes may go down to one channel.
    narrow = Prune(target_macs="6%", criterion="reconstruction", scope="global", images=data)
    assert min(x.channels_in for x in measured_layers(narrow(small).model)) == 1


def test_filters_that_have_one_weight_stay_as_they_are():
    net = Net(3, 8, 8)
    y = net.relu(net.conv("x", 3, 3, 1, name="scale", group=3))
    small = net.model(net.head(net.conv(y, 3, 8, name="a"), 8, 5))
    data = images_for(small, 24)
    for step in (
        Quantize(bits=3),
        Quantize(target_cost="11%"),
        Aciq(bits=3),
        CompensatedQuantization(data, bits=3, walk=OPTIONS),
        CompensatedQuantization(data, target_cost="11%", walk=OPTIONS),
    ):
        result = step(small)
        assert [x.name for x in measured_layers(small) if x.name not in named(result)] == ["scale"]
        assert result.details["cost_after"] == total_cost(result.model)
        assert total_cost(result.model) <= 0.121 * total_cost(small)
        if not isinstance(step, CompensatedQuantization) or step.bits:
            (note,) = (s for s in result.skipped if s.node == "scale")
            assert "too few weights" in note.reason


def named(result: PassResult) -> set[str]:
    assert isinstance(result.plan, QuantizationPlan)
    return {x.layer for x in result.plan.layers}


def test_reconstruction_needs_images():
    with pytest.raises(OptionError, match="needs images"):
        Prune(ratio=0.5, criterion="reconstruction")(model())


@pytest.mark.parametrize("options", [{"ratio": 0.3}, {"target_macs": "60%"}])
def test_reconstruction_loses_less_than_signal_norm(options):
    found = {}
    for criterion in ("signal-norm", "reconstruction"):
        pruned = Prune(**options, criterion=criterion, images=images())(model())
        assert pruned.modified
        again = Reconstruct(images(), model(), options=OPTIONS)(pruned.model)
        found[criterion] = divergence(model(), again.model)
    assert found["reconstruction"] < 1.1 * found["signal-norm"]


def test_fast_takes_channels_away_only_where_it_must():
    for budget, pruned in (("10%", False), ("2.8%", False), ("2%", True)):  # 3.1 % is one bit
        step = CompensatedQuantization(
            images(), target_cost=budget, prune=True, effort="fast", walk=OPTIONS
        )
        stages = dict(step.stages(model()))
        assert ("prune" in stages) == pruned
        (trial,) = stages["quantize"].details["trials"]
        assert trial["kept"]


def test_efforts_try_more_and_more():
    passes = [effort.passes for effort in EFFORTS.values()]
    scales = [len(effort.scales) for effort in EFFORTS.values()]
    assert passes == sorted(passes)
    assert scales == sorted(scales)
    with pytest.raises(OptionError, match="effort"):
        CompensatedQuantization(images(), bits=3, effort="heroic")


def test_layers_that_share_a_weight_get_the_same_bits():
    # Towers over levels of different sizes: a bit costs more where the level is larger.
    net = MODELS["retina_net"].build()
    step = CompensatedQuantization(
        some_images(net, 12), target_cost=2.5 * total_macs(net), effort="fast", walk=OPTIONS
    )
    assert total_cost(step(net).model) <= 2.5 * total_macs(net)


def test_pruning_must_win_by_more_than_chance():
    done = PassResult(model(), True)

    trials = [Trial(math.inf, None, done, 1.0), Trial(1.0, done, done, 1.0)]

    def favoured(pruned, whole, images, spread=None):
        """`spread`: of the logarithms of eight images, around the mean factor."""
        judged = [Judged(whole), Judged(pruned)]
        if spread is not None:
            each = np.full(8, whole)
            judged = [Judged(whole, each), Judged(pruned, pruned * np.exp(spread))]
        return best_of(trials, judged, images)

    # On the same images, by the spread of their factors; 0.16 in logarithms here.
    alternating = np.tile([1, -1], 4)
    assert favoured(0.85, 1.0, 82, 0.3 * alternating) == 1
    assert favoured(0.85, 1.0, 82, 0.6 * alternating) == 0
    assert favoured(0.85, 1.0, 82, 0.0 * alternating) == 1
    assert favoured(1.0, 1.0, 82, 0.0 * alternating) == 0
    assert favoured(1.1, 1.0, 82, 0.0 * alternating) == 0
    # Where outputs do not follow the images, by a factor that their number asks for.
    assert favoured(0.85, 1.0, 82) == 0  # 1.22
    assert favoured(0.80, 1.0, 82) == 1
    assert favoured(0.85, 1.0, 400) == 1
    assert favoured(math.inf, 1.0, 400) == 0
    both = [Trial(1.0, done, done, 1.0), Trial(2.0, done, done, 1.0)]
    assert best_of(both, [Judged(0.3), Judged(0.2)], 10) == 1
