"""Every tiny graph: what can be removed is removed, and sliced ≡ masked."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.graph.channels.groups import analyse
from onnx_esn.graph.layers import find_layers
from onnx_esn.graph.rewrite.rewriting import rewrite
from tests.models import MODELS
from tests.net import feeds_for
from tests.oracles.equivalence import (
    assert_sliced_is_masked,
    free_classes,
    legal_removal,
    relative_difference,
    rewrite_or_lock,
    run,
    run_reference,
)

GRAPHS = pytest.mark.parametrize("name", MODELS)


def expected():
    """All graphs; where a good pruner would reach more than ours, the expectation has to fail."""
    for name, case in MODELS.items():
        marks = pytest.mark.xfail(strict=True, reason=case.open) if case.open else ()
        yield pytest.param(name, marks=marks)


def batches(model):
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    return (1, 3) if dim.dim_param else (dim.dim_value,)


@pytest.mark.parametrize("name", list(expected()))
def test_expected_layers_are_prunable(name):
    case = MODELS[name]
    model = case.build()
    onnx.checker.check_model(model, full_check=True)
    analysis = analyse(model)
    prunable = {m.node for g in analysis.groups if g.prunable for m in g.members}
    assert set(case.prunable) <= prunable, [(g.name, g.reason) for g in analysis.groups]
    assert not set(case.stays) & prunable
    if case.locked:
        assert any(case.locked in r for r in analysis.classes.reasons), analysis.classes.reasons


@GRAPHS
@settings(max_examples=4)
@given(data=st.data())
def test_sliced_is_masked(name, data):
    model = MODELS[name].build()
    before = model.SerializeToString()
    analysis = analyse(model)
    free = free_classes(analysis)
    wanted = data.draw(st.permutations(free))[
        : data.draw(st.integers(min(1, len(free)), len(free)))
    ]
    removed = analysis.removed_labels(legal_removal(analysis, wanted))
    rewritten = rewrite(analysis, removed)  # no graph here may need a second attempt
    assert_sliced_is_masked(analysis, removed, rewritten, batches(model))
    assert model.SerializeToString() == before
    new = rewritten.model
    for part in ("ir_version", "opset_import", "metadata_props", "doc_string", "producer_name"):
        assert getattr(new, part) == getattr(model, part)
    assert new.functions == analysis.model.functions
    assert new.graph.doc_string == model.graph.doc_string
    assert {i.name for i in new.graph.input} <= {i.name for i in model.graph.input} | {
        t.name for t in new.graph.initializer
    }


@GRAPHS
def test_every_layer_keeps_a_filter(name):
    model = MODELS[name].build()
    analysis, _, rewritten, locks = rewrite_or_lock(model, free_classes)
    assert not locks
    after = analyse(rewritten.model)
    layers = find_layers(rewritten.model, after.constants, after.facts)
    assert len(layers) == len(analysis.layers)
    assert all(x.filters > 0 and x.channels_in > 0 for x in layers)
    assert all(min(t.dims, default=1) > 0 for t in rewritten.model.graph.initializer)


@GRAPHS
def test_nothing_removed_is_the_same_bytes(name):
    model = MODELS[name].build()
    analysis = analyse(model)
    same = rewrite(analysis, np.zeros(analysis.propagation.space.count + 1, bool))
    assert same.slices == ()
    assert same.model.SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize(
    "name", ["residual", "channel_shuffle_computed", "option_a_by_pad", "attention", "u_net"]
)
def test_a_second_runtime_agrees(name):
    model = MODELS[name].build()
    analysis, _, rewritten, _ = rewrite_or_lock(model, lambda a: free_classes(a)[::2])
    feeds = feeds_for(model, analysis.facts.sizes)
    expected = run(rewritten.model, feeds)
    assert relative_difference(expected, run_reference(rewritten.model, feeds)) < 1e-5
