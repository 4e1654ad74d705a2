"""How much `prune` removes, and from where."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_esn.budgets import Target
from onnx_esn.errors import BudgetError, OptionError
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.pruning.replay import planned_removal
from onnx_esn.passes.pruning.scores import CRITERIA
from onnx_esn.passes.pruning.selection import MacCounter
from onnx_esn.passes.pruning.zero_filters import RemoveZeroFilters
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import relative_difference, run, sizes_of


def build(name):
    return MODELS[name].build()


def widths(model):
    return {x.name: x.filters for x in analyse(model).layers}


def macs(model):
    return sum(x.macs for x in analyse(model).layers)


def prunable_filters(model):
    analysis = analyse(model)
    first = analysis.first_labels
    free = np.append(~analysis.classes.locked, False)[analysis.classes.of]
    return sum(
        int(free[first[x.index] : first[x.index] + x.filters].sum())
        for x in analysis.layers
        if x.index in first
    )


# How much.


SCOPED = [(0.0, "layer"), (0.29, "global"), (0.5, "layer"), (0.9, "global")]


@pytest.mark.parametrize("name", MODELS)
def test_ratio_is_kept_from_below(name):
    for ratio, scope in SCOPED:
        check_ratio(build(name), ratio, scope)


def check_ratio(model, ratio, scope):
    result = Prune(ratio=ratio, scope=scope, absorb="none")(model)
    total, removed = prunable_filters(model), result.details["filters_removed"]
    assert removed <= ratio * total + 1e-9
    before, after = widths(model), widths(result.model)
    assert sum(before.values()) - sum(after.values()) == removed
    assert result.modified == (removed > 0)
    if not removed:
        assert result.model is model


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("name", ["chain", "chain_with_batchnorm", "dense_net", "inception"])
def test_ratio_is_met_where_every_filter_is_a_class(name, ratio):
    model = build(name)
    removed = Prune(ratio=ratio, absorb="none")(model).details["filters_removed"]
    assert removed == pytest.approx(ratio * prunable_filters(model), abs=1)


def test_layer_scope_takes_the_same_share_everywhere():
    result = Prune(ratio=0.5, absorb="none")(build("chain"))
    assert widths(result.model)["a"] == 4
    assert widths(result.model)["b"] == 3


def loud(weight, scale):
    """A chain whose second layer has an order of magnitude between its filters' norms."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.conv(y, 8, 8, name="b"))
    model = net.model(net.head(y, 8))
    tensor = next(t for t in model.graph.initializer if t.name == weight)
    W = onnx.numpy_helper.to_array(tensor) * np.reshape(scale, (-1, 1, 1, 1))
    tensor.CopyFrom(onnx.numpy_helper.from_array(W.astype(np.float32), weight))
    return model


def test_global_scope_takes_the_weakest_of_all():
    scale = [1e-3] * 4 + [1.0] * 4
    result = Prune(ratio=0.25, scope="global", absorb="none")(loud("b.weight", scale))
    assert widths(result.model) == {"a": 8, "b": 4, "gemm_6": 3}
    (entry,) = [s for s in result.plan.slices if s.tensor == "b.weight"]
    assert entry.removed == (0, 1, 2, 3)


@pytest.mark.parametrize("name", MODELS)
def test_rounded_widths_are_multiples_or_untouched(name):
    model = build(name)
    for multiple, scope in ((2, "layer"), (4, "global")):
        result = Prune(ratio=0.6, round_to=multiple, scope=scope, absorb="none")(model)
        before, after = widths(model), widths(result.model)
        for layer, width in after.items():
            assert width == before[layer] or width % multiple == 0, layer


@pytest.mark.parametrize("name", MODELS)
def test_counted_macs_are_those_of_the_output(name):
    model = build(name)
    for ratio in (0.3, 0.7):
        result = Prune(ratio=ratio, absorb="none")(model)
        assert result.details["macs_before"] == macs(model)
        assert result.details["macs_after"] == macs(result.model)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.25])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(
    "name", ["chain", "residual", "depthwise", "grouped_in_many", "u_net", "flatten", "dense_net"]
)
def test_target_macs_are_met_from_below_and_tightly(name, scope, share):
    model = build(name)
    goal = share * macs(model)
    try:
        result = Prune(target_macs=f"{100 * share:g}%", scope=scope, absorb="none")(model)
    except BudgetError:
        least = Prune(ratio=0.99, absorb="none")(model)
        assert macs(least.model) > goal
        return
    reached = macs(result.model)
    assert reached == result.details["macs_after"]
    assert reached <= goal
    # No class that was removed could stay.
    analysis = analyse(model)
    removed = planned_removal(analysis, result.plan)
    count = MacCounter(analysis)
    for c in np.unique(analysis.classes.of[removed]):
        assert count(removed & (analysis.classes.of != c)) > goal


def test_a_target_above_the_model_removes_nothing():
    result = Prune(target_macs="1G")(build("chain"))
    assert not result.modified


def test_budget_error_says_what_can_be_reached():
    with pytest.raises(BudgetError, match=r"1,000 MACs cannot be reached.*[\d,]{5,} remain"):
        Prune(target_macs=Target(1000))(build("chain"))


def test_budget_error_of_a_rounded_model():
    """Rounding can forbid what a single filter would allow."""
    with pytest.raises(BudgetError, match="multiple"):
        Prune(target_macs="5%", round_to=8)(build("chain"))


# Which.


@pytest.mark.parametrize("pattern", ["b", "b.weight", "b*"])
def test_excluded_layers_keep_their_filters(pattern):
    result = Prune(ratio=0.5, exclude=[pattern], absorb="none")(build("chain"))
    assert widths(result.model)["b"] == 6
    assert widths(result.model)["a"] == 4
    assert any(s.node == "b" and "excluded by" in s.reason for s in result.skipped)


def test_excluding_one_layer_of_a_residual_stream_keeps_the_stream():
    result = Prune(ratio=0.5, exclude=["c"], absorb="none")(build("residual"))
    assert widths(result.model) == {**widths(build("residual")), "b": 3}


def test_a_pattern_without_a_match_names_close_ones():
    with pytest.raises(OptionError, match=r"'gem_\*' matches no layer; close names: gemm_6"):
        Prune(ratio=0.5, exclude=["gem_*"])(build("chain"))


@pytest.mark.parametrize("criterion", [c for c in CRITERIA if c != "output-variance"])
def test_every_criterion_ranks_a_weak_filter_first(criterion):
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 8, bias=False, name="a")
    y = net.relu(net.bn(y, 8))
    model = net.model(net.head(y, 8))
    tensors = {t.name: t for t in model.graph.initializer}
    gamma = next(n for n in model.graph.node if n.op_type == "BatchNormalization").input[1]
    for name in ("a.weight", gamma):
        value = onnx.numpy_helper.to_array(tensors[name]).copy()
        value[5] *= 1e-3
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(value, name))
    plan = Prune(ratio=0.13, criterion=criterion, absorb="none")(model).plan
    assert {s.removed for s in plan.slices if s.tensor == "a.weight"} == {(5,)}


def test_output_variance_without_batchnorm_asks_for_images():
    with pytest.raises(OptionError, match="needs images"):
        Prune(ratio=0.5, criterion="output-variance")(build("chain"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of ratio, target_macs or plan"),
        ({"ratio": 0.5, "target_macs": "50%"}, "one of ratio, target_macs or plan"),
        ({"ratio": 1.0}, "ratio 1 is not a fraction"),
        ({"ratio": -0.1}, "ratio -0.1 is not a fraction"),
        ({"ratio": float("nan")}, "not a fraction"),
        ({"ratio": 0.5, "criterion": "luck"}, "criterion 'luck' is not one of signal-norm"),
        ({"ratio": 0.5, "scope": "here"}, "scope 'here' is not one of layer, global"),
        ({"ratio": 0.5, "absorb": "all"}, "absorb 'all' is not one of none, constant, mean"),
        ({"ratio": 0.5, "round_to": 0}, "round_to must be at least 1"),
    ],
)
def test_contradicting_options(options, message):
    with pytest.raises(OptionError, match=message):
        Prune(**options)


# What is left alone, and how the result looks.


def test_locked_groups_and_barriers_are_reported():
    result = Prune(ratio=0.5)(build("custom_operator"))
    reasons = {s.node: s.reason for s in result.skipped}
    assert "no rule for operator com.microsoft.Trilu" in reasons["a"]
    assert "no rule for operator com.microsoft.Trilu" in reasons["Trilu 'trilu_3'"]
    assert "graph output" in reasons["gemm_9"]


@pytest.mark.parametrize("name", MODELS)
def test_the_same_bytes_every_time_and_the_input_untouched(name):
    model = build(name)
    before = model.SerializeToString()
    first = Prune(ratio=0.5)(model)
    second = Prune(ratio=0.5)(build(name))
    assert first.model.SerializeToString() == second.model.SerializeToString()
    assert first.plan == second.plan
    assert model.SerializeToString() == before
    onnx.checker.check_model(first.model, full_check=True)
    feeds = feeds_for(model, analyse(model).facts.sizes)
    for a, b in zip(run(model, feeds), run(first.model, feeds), strict=True):
        # How many boxes there are depends on the values.
        assert a.shape == b.shape or name == "non_maximum_suppression"
        assert a.dtype == b.dtype


def dead(absorbable=True):
    """A chain with three filters that are zero in their weights; two of them still have a bias."""
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 8, name="a", pads=[0] * 4)
    y = net.op("InstanceNormalization", y, net.vector(8), net.vector(8)) if not absorbable else y
    y = net.relu(y)
    y = net.conv(y, 8, 6, 1, name="b")
    model = net.model(net.head(y, 6))
    tensor = next(t for t in model.graph.initializer if t.name == "a.weight")
    W = onnx.numpy_helper.to_array(tensor).copy()
    W[[1, 4, 6]] = 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(W, tensor.name))
    return model


def test_zero_filters_go_without_a_trace():
    model = dead()
    result = RemoveZeroFilters()(model)
    assert widths(result.model)["a"] == 5
    feeds = feeds_for(model, sizes_of(model))
    assert relative_difference(run(model, feeds), run(result.model, feeds)) < 1e-5
    assert not [s for s in result.skipped if "inexact" in s.reason]


def test_zero_filters_whose_constant_is_lost_on_the_way_stay():
    """Behind an InstanceNormalization nothing is known to be constant."""
    model = dead(absorbable=False)
    result = RemoveZeroFilters()(model)
    assert not result.modified
    assert result.model is model


def test_nothing_to_remove():
    model = build("chain")
    result = RemoveZeroFilters()(model)
    assert result.model is model
    assert not result.modified
