"""Prune with `exact`: what costs nothing first, then the rest, in one plan."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.plans import PruningPlan, parse_plan
from onnx_esn.report.summaries import summary
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import relative_difference, run, sizes_of


def edited(model, **changes):
    """The model with `change(array)` made to each named tensor."""
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            value = onnx.numpy_helper.to_array(tensor).copy()
            changes[tensor.name](value)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return model


def redundant():
    """A chain: filter 4 of `a` repeats filter 1, and nobody reads filter 2 of `b`."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, bias=False, name="a"))
    y = net.relu(net.conv(y, 8, 6, bias=False, name="b"))
    model = net.model(net.head(net.relu(net.conv(y, 6, 8, name="c")), 8))

    def twice(W):
        W[4] = W[1]

    def unread(W):
        W[:, 2] = 0

    return edited(model, **{"a.weight": twice, "c.weight": unread})


def test_alone_it_loses_nothing():
    model = redundant()
    result = Prune(exact=True)(model)
    feeds = feeds_for(model, sizes_of(model))
    assert relative_difference(run(model, feeds), run(result.model, feeds)) < 1e-5
    assert result.details["filters_removed"] == 2
    assert result.details["exact"]["filters_duplicate"] == 1
    assert result.details["exact"]["filters_unread"] == 1
    assert Prune(ratio=0.0, exact=True)(model).model == result.model
    lines = summary("prune", result)
    assert "2 of them without loss (1 unread, 1 duplicate)" in lines
    assert lines[-1].endswith("try --round-to 8")


def test_a_ratio_speaks_of_what_is_left():
    model = redundant()
    exact = Prune(exact=True)(model)
    result = Prune(ratio=0.5, exact=True)(model)
    apart = Prune(ratio=0.5)(exact.model)
    assert result.model == apart.model
    assert result.details["filters_removed"] == 2 + apart.details["filters_removed"]
    assert result.details["filters_prunable"] == 2 + apart.details["filters_prunable"]
    assert result.details["macs_before"] == exact.details["macs_before"]


def test_a_percentage_speaks_of_the_input_model():
    model = redundant()
    whole = Prune(ratio=0.0)(model).details["macs_before"]
    result = Prune(target_macs="60%", exact=True)(model)
    assert 0.4 * whole < result.details["macs_after"] <= 0.6 * whole
    assert Prune(target_macs="99%", exact=True)(model).model == Prune(exact=True)(model).model


def test_both_steps_are_one_plan():
    result = Prune(ratio=0.5, exact=True)(redundant())
    assert result.plan.merged
    assert result.plan.then is not None
    text = result.plan.to_json()
    plan = parse_plan(json.loads(text), PruningPlan)
    assert plan == result.plan
    again = Prune(plan=plan)(redundant())
    assert again.model.SerializeToString() == result.model.SerializeToString()
    assert again.plan == result.plan


@pytest.mark.parametrize("name", MODELS)
def test_its_plan_replays_byte_for_byte(name):
    model = MODELS[name].build()
    result = Prune(ratio=0.4, exact=True)(model)
    again = Prune(plan=result.plan)(MODELS[name].build())
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_nothing_redundant_is_nothing_done():
    model = MODELS["chain"].build()
    result = Prune(exact=True)(model)
    assert not result.modified
    assert result.plan.slices == ()
    assert Prune(ratio=0.5, exact=True)(model).plan == Prune(ratio=0.5)(model).plan
    assert np.all([n == 0 for k, n in result.details["exact"].items() if "removed" in k])
