"""`prune --selection qcqp`: budgets, what is left of the model, plans, options."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import onnx_esn
from onnx_esn.errors import BudgetError, OptionError
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.passes.pruning.consistent_rewriting import rewrite_or_lock
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.selection.program import select
from onnx_esn.passes.selection.targets import Targets
from onnx_esn.plans.latency_model import LatencyModel, LayerLatency
from tests.graph.random_graphs import random_model, sizes_of_run
from tests.models import MODELS
from tests.net import Net
from tests.oracles.equivalence import assert_sliced_is_masked

SECONDS = 5.0


def build(name):
    return MODELS[name].build()


def residual_net(width=8, blocks=3, norm=True, seed=0):
    """A stem, blocks of two convolutions on a stream, a head."""
    net = Net(3, 8, 8, seed=seed)

    def conv(x, c, m):
        y = net.conv(x, c, m, bias=not norm)
        if not norm:
            return y
        bn = [net.vector(m, low=0.2, high=2.0), net.vector(m), net.vector(m)]
        return net.op("BatchNormalization", y, *bn, net.vector(m, low=0.5, high=2.0))

    x = net.op("Relu", conv("x", 3, width))
    for i in range(blocks):
        inner = width + 2 * i
        y = conv(net.op("Relu", conv(x, width, inner)), inner, width)
        x = net.op("Relu", net.op("Add", x, y))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", x))
    fc = net.weight(5, width, fan_in=width)
    return net.model(net.op("Gemm", pooled, fc, net.vector(5), transB=1))


def macs(model):
    return sum(x.macs for x in analyse(model).layers)


def latency_of(model, seed=0):
    rng = np.random.default_rng(seed)
    layers = {
        x.name: LayerLatency(*(1e-4 * rng.uniform(0.1, 1, 4)).tolist())
        for x in analyse(model).layers
    }
    return LatencyModel(layers, 1e-4)


def check_inactive(model):
    """No filter whose weights are all zero, no channel that every reader multiplies with zero."""
    analysis = analyse(model)
    labels, read, fed = analysis.propagation.labels, {}, {}
    for x in analysis.layers:
        W = x.as_filters(analysis.constants.value(x.weight)) != 0
        source = labels.get(analysis.model.graph.node[x.index].input[0])
        of = analysis.classes.of
        first = analysis.first_labels[x.index]
        for j in range(x.filters):
            c = int(of[first + j])
            fed[c] = fed.get(c, False) or bool(W[j].any())
        if source is not None:
            used = W.reshape(x.filters, x.channels_in, -1).any(axis=(0, 2))
            for i, label in enumerate(source.reshape(-1)):
                c = int(of[label])
                read[c] = read.get(c, False) or bool(used[i])
    return sum(not ok for ok in read.values()) + sum(not ok for ok in fed.values())


@pytest.mark.parametrize("name", MODELS)
def test_the_target_is_met_from_below_or_said_to_be_out_of_reach(name):
    model = build(name)
    before = macs(model)
    try:
        result = Prune(target_macs="60%", selection="qcqp", solver_time=SECONDS)(model)
    except BudgetError:
        with pytest.raises(BudgetError):
            Prune(target_macs="60%", scope="global")(model)
        return
    assert result.details["macs_after"] <= 0.6 * before
    report = result.details["selection"]
    assert report["greedy"] is None or report["objective"] >= report["greedy"] * (1 - 1e-12)
    assert report["objective"] <= report["bound"] * (1 + 1e-12)
    # The last filter of a layer that leads nowhere has to stay.
    assert report["inactive"] == (name == "unused_nodes")
    onnx.checker.check_model(result.model, full_check=True)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.sampled_from((0.5, 0.8)))
def test_sliced_is_masked_on_random_graphs(seed, share):
    model = random_model(random.Random(seed))
    sizes = [sizes_of_run(model, k) for k in (0, 1)]
    analysis = analyse(model, shapes=sizes[0])
    targets = Targets(f"{100 * share}%")
    try:
        analysis, removed, rewritten = rewrite_or_lock(
            analysis, [], lambda a: select(a, targets, seconds=SECONDS).removed
        )
    except BudgetError:
        return
    assert_sliced_is_masked(analysis, removed, rewritten, sizes=sizes)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("share", [0.7, 0.5, 0.3])
def test_a_residual_net_uses_its_budget_and_leaves_nothing_idle(norm, share):
    model = residual_net(width=24, blocks=3, norm=norm)
    result = Prune(target_macs=f"{100 * share}%", selection="qcqp", solver_time=SECONDS)(model)
    assert 0.98 * share * macs(model) < result.details["macs_after"] <= share * macs(model)
    assert macs(result.model) == result.details["macs_after"]
    assert check_inactive(result.model) == 0


def test_channels_that_nothing_reads_and_filters_of_nothing_go():
    model = residual_net(width=12, blocks=2, norm=False)
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    tensors = {t.name: t for t in model.graph.initializer}
    first, second = (tensors[n.input[1]] for n in convs[1:3])
    W, V = (numpy_helper.to_array(t).copy() for t in (first, second))
    W[3] = 0  # a filter that reads nothing
    W[5] *= 50  # worth much by itself …
    V[:, 5] = 0  # … and nothing reads it
    first.CopyFrom(numpy_helper.from_array(W, first.name))
    second.CopyFrom(numpy_helper.from_array(V, second.name))
    assert check_inactive(model) == 2
    result = Prune(target_macs="80%", selection="qcqp", solver_time=SECONDS)(model)
    assert check_inactive(result.model) == 0
    gone = next(s.removed for s in result.plan.slices if s.tensor == first.name and s.axis == 0)
    assert {3, 5} <= set(gone)
    assert result.details["macs_after"] > 0.75 * macs(model)


def test_any_mix_of_targets_is_met_and_one_is_tight():
    model = residual_net(width=24)
    latency = latency_of(model)
    asked = {"target_macs": "60%", "target_params": "55%", "target_memory": "70%"}
    result = onnx_esn.prune(
        model,
        selection="qcqp",
        target_latency="65%",
        latency_model=latency,
        solver_time=SECONDS,
        **asked,
    )
    used = {n: b["after"] / b["limit"] for n, b in result.details["selection"]["budgets"].items()}
    assert set(used) == {"macs", "params", "memory", "latency"}
    assert max(used.values()) <= 1 + 1e-9
    assert max(used.values()) > 0.99
    before, after = (sum(x.parameters for x in analyse(m).layers) for m in (model, result.model))
    assert after <= 0.55 * before
    seconds = latency.rest + sum(
        latency.layers[x.name].seconds(x.channels_in, x.filters)
        for x in analyse(result.model).layers
    )
    shown = result.details["selection"]["budgets"]["latency"]
    assert 1e3 * seconds == pytest.approx(shown["after"])


@pytest.mark.parametrize("asked", ["0.9ms", "0.9 ms", 0.9, "0.9"])
def test_latency_is_asked_for_in_milliseconds(asked):
    model = residual_net()
    latency = latency_of(model)
    whole = 1e3 * (
        latency.rest
        + sum(
            latency.layers[x.name].seconds(x.channels_in, x.filters) for x in analyse(model).layers
        )
    )
    scale = 1.5 / whole  # the whole takes 1.5 ms
    layers = {
        name: LayerLatency(*(scale * c for c in (v.c0, v.c1, v.c2, v.c3)))
        for name, v in latency.layers.items()
    }
    fitted = LatencyModel(layers, scale * latency.rest)
    step = Prune(target_latency=asked, latency_model=fitted, selection="qcqp", solver_time=SECONDS)
    budget = step(model).details["selection"]["budgets"]["latency"]
    assert budget["before"] == pytest.approx(1.5)
    assert budget["limit"] == pytest.approx(0.9)
    assert 0.8 < budget["after"] <= 0.9 * (1 + 1e-9)


def test_only_exclude_round_to_and_min_width_hold():
    model = residual_net(width=16)
    convs = [n.name for n in model.graph.node if n.op_type == "Conv"]
    result = Prune(
        target_macs="70%",
        selection="qcqp",
        solver_time=SECONDS,
        exclude=(convs[1],),
        round_to=4,
        min_width=8,
    )(model)
    before = {x.name: x.filters for x in analyse(model).layers}
    after = {x.name: x.filters for x in analyse(result.model).layers}
    assert after[convs[1]] == before[convs[1]]
    assert all(n == before[k] or (n % 4 == 0 and n >= 8) for k, n in after.items())
    assert after != before
    chosen = Prune(target_macs="90%", selection="qcqp", only=(convs[3],), solver_time=SECONDS)
    left = {x.name: x.filters for x in analyse(chosen(model).model).layers}
    assert {k for k in left if left[k] != before[k]} == {convs[3]}


def test_a_plan_replays_it():
    model = residual_net(width=16)
    result = Prune(target_macs="50%", selection="qcqp", solver_time=SECONDS)(model)
    again = Prune(plan=result.plan)(model)
    assert again.model == result.model


def test_what_changes_nothing_goes_first_where_asked():
    model = residual_net(width=16, norm=False)
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    W = next(t for t in model.graph.initializer if t.name == convs[2].input[1])
    values = numpy_helper.to_array(W).copy()
    values[:, :4] = 0  # four channels that nobody reads
    W.CopyFrom(numpy_helper.from_array(values, W.name))
    result = Prune(target_macs="60%", selection="qcqp", exact=True, solver_time=SECONDS)(model)
    assert result.details["exact"]["filters_removed"] >= 4
    assert 0.58 * macs(model) < macs(result.model) <= 0.6 * macs(model)
    step = Prune(target_params="60%", selection="qcqp", exact=True, solver_time=SECONDS)
    before, after = (
        sum(x.parameters for x in analyse(m).layers) for m in (model, step(model).model)
    )
    assert 0.58 * before < after <= 0.6 * before


def test_a_target_above_what_there_is_removes_nothing():
    model = residual_net()
    result = Prune(target_macs=10 * macs(model), selection="qcqp")(model)
    assert not result.modified
    assert result.details["selection"]["optimal"]


def test_a_target_out_of_reach_says_what_is_left():
    with pytest.raises(BudgetError, match=r"MACs cannot be reached by pruning: .* remain"):
        Prune(target_macs=10, selection="qcqp")(residual_net())


def test_large_figures_are_written_out():
    model = residual_net(width=32)
    whole = macs(model)
    with pytest.raises(BudgetError, match=f"^1,234,567 MACs cannot .* left {whole:,} remain"):
        Prune(target_macs=1_234_567, exclude=("*",), selection="qcqp")(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.5, "selection": "qcqp"}, "needs a target"),
        ({"selection": "qcqp", "exact": True}, "needs a target"),
        ({"target_params": "50%"}, "needs selection qcqp"),
        ({"target_macs": "50%", "target_memory": "50%"}, "needs selection qcqp"),
        ({"target_latency": "50%", "selection": "qcqp"}, "go together"),
        ({"target_macs": "50%", "latency_model": "x", "selection": "qcqp"}, "go together"),
        ({"target_macs": "5O%", "selection": "qcqp"}, "is not a target"),
        (
            {"target_latency": "3 s", "latency_model": LatencyModel({}), "selection": "qcqp"},
            "is not a time",
        ),
        ({"target_macs": "50%", "selection": "best"}, "'best' is not one of ranked, qcqp"),
        ({"target_macs": "50%", "selection": "qcqp", "scope": "layer"}, "leave criterion"),
        ({"target_macs": "50%", "selection": "qcqp", "criterion": "l1-norm"}, "leave criterion"),
        ({"target_macs": "50%", "selection": "qcqp", "solver_time": 0}, "must be above 0"),
        ({"plan": "x.json", "selection": "qcqp"}, "does not go with a plan"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(OptionError, match=message):
        Prune(**options)


def test_a_latency_model_of_another_model_is_refused():
    model = residual_net()
    known = dict(list(latency_of(model).layers.items())[:-2])
    step = Prune(target_latency="50%", latency_model=LatencyModel(known), selection="qcqp")
    with pytest.raises(OptionError, match="has no layer 'conv_"):
        step(model)
