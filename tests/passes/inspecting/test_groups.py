"""What `inspect` says of channel groups."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_esn.graph.channels.groups import analyse
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.passes.pruning.macs import MacCounter
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.pruning.steering import filters_of
from tests.models import MODELS


def build(name):
    return MODELS[name].build()


def groups_of(name):
    return {g.name: g for g in inspect(build(name)).groups}


def test_a_plain_chain():
    model = build("chain")
    layers = {x.name: x.macs for x in inspect(model).layers}
    total = inspect(model).totals.macs
    groups = groups_of("chain")
    fc = next(name for name in layers if name.startswith("gemm"))
    assert groups["a"].macs == layers["a"] + layers["b"]
    assert groups["b"].macs == layers["b"] + layers[fc]
    assert groups[fc].macs == layers[fc]
    for group in groups.values():
        assert group.share == group.macs / total
    assert (groups["a"].width, groups["a"].prunable, groups["a"].prunable_filters) == (8, 8, 8)
    assert groups["a"].locks == ()
    assert groups[fc].prunable_filters == 0
    assert [(x.reason, x.classes) for x in groups[fc].locks] == [(groups[fc].reason, 3)]


def test_a_residual_stream_counts_all_its_layers():
    group = groups_of("residual")["a"]
    assert [m.node for m in group.members] == ["a", "c"]
    assert (group.width, group.prunable_filters, group.granularity) == (8, 16, 1)


@pytest.mark.parametrize(
    ("model", "group", "width", "granularity"),
    [
        ("gated_linear_unit", "b", 6, 2),
        ("depthwise_multiplier_two", "a", 8, 2),
        ("chain", "a", 8, 1),
    ],
)
def test_granularity_is_how_many_filters_of_a_layer_go_together(model, group, width, granularity):
    found = groups_of(model)[group]
    assert found.granularity == granularity
    assert found.width == width


@pytest.mark.parametrize("name", MODELS)
def test_the_figures_agree_with_pruning(name):
    model = build(name)
    analysis = analyse(model)
    inspection = inspect(model, input_shape=analysis.facts.sizes)
    details = Prune(ratio=0.0)(model).details
    counter = MacCounter(analysis)
    nothing = np.zeros(analysis.classes.of.size, np.bool_)
    assert sum(g.prunable_filters for g in inspection.groups) <= details["filters_prunable"]
    spans = filters_of(analysis)
    for group in inspection.groups:
        assert sum(x.classes for x in group.locks) + group.prunable == group.width
        assert all(x.reason for x in group.locks)
        # Removing the classes of its filters, one group at a time.
        own = [analysis.classes.of[spans[m.node]] for m in group.members if m.node in spans]
        if len(own) == len(group.members):
            gone = np.isin(analysis.classes.of, np.concatenate(own))
            assert group.macs == counter(nothing) - counter(gone)
