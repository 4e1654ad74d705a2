"""What a ratio for each layer takes from its channel group."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.errors import OptionError, PlanError
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.pruning.replay import planned_removal
from onnx_esn.passes.pruning.steering import filters_of
from onnx_esn.plans import PruningPlan, PruningRatios
from tests.models import MODELS
from tests.passes.pruning.test_steering import build, pruned, reasons, three, widths


def test_each_layer_has_its_own_ratio():
    after = widths(pruned({"a": 0.25, "b.weight": 0.5}).model)
    assert after == {**widths(three()), "a": 6, "b": 3}


def test_the_last_pattern_that_matches_holds():
    assert widths(pruned({"?": 0.5, "a": 0.0}).model)["a"] == 8
    assert widths(pruned({"a": 0.0, "?": 0.5}).model)["a"] == 4


def test_layers_that_share_channels_take_the_smallest_and_say_so():
    result = pruned({"s[0]": 0.75, "s[1]": 0.25})
    assert widths(result.model)["s[0]"] == widths(result.model)["s[1]"] == 6
    assert "from 0.25 to 0.75: the smallest holds, that of 's[1]'" in reasons(result)["s[0]"]
    assert not pruned({"s[0]": 0.75}).modified
    assert "s[0]" not in reasons(pruned({"s*": 0.75}))


def test_the_default_is_for_what_no_pattern_matches():
    for result in (
        Prune(plan=PruningRatios({"a": 0.0}, 0.5))(three()),
        Prune(plan=PruningRatios({"a": 0.0}), ratio=0.5)(three()),
    ):
        after = widths(result.model)
        assert [after[x] for x in ("a", "b", "s[0]", "s[1]")] == [8, 3, 4, 4]
    with pytest.raises(OptionError, match=r"the ratios have a default, 0\.5; leave out"):
        Prune(plan=PruningRatios({"a": 0.0}, 0.5), ratio=0.5)(three())


def shares_lost(model, plan):
    """The share of its prunable filters that each group loses, with the names of its layers."""
    analysis = analyse(model)
    of = analysis.classes.of
    filters = np.concatenate([*filters_of(analysis).values(), np.empty(0, np.int64)])
    free = filters[~analysis.classes.locked[of[filters]]]
    gone = planned_removal(analysis, plan)
    for group in analysis.groups:
        own = free[np.isin(of[free], group.classes)]
        yield [m.node for m in group.members], gone[own].mean() if own.size else 0.0


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_group_loses_more_than_its_ratio(data):
    model = build(data.draw(st.sampled_from(sorted(MODELS))))
    layers = sorted(widths(model))
    ratios = data.draw(st.dictionaries(st.sampled_from(layers), st.floats(0, 0.99)))
    default = data.draw(st.none() | st.floats(0, 0.99))
    result = Prune(plan=PruningRatios(ratios, default), absorb="none")(model)
    for members, lost in shares_lost(model, result.plan):
        least = min((ratios.get(x, default or 0.0) for x in members), default=0)
        assert lost <= least + 1e-9
    assert Prune(plan=result.plan)(model).model == result.model


def test_a_ratio_speaks_of_filters_not_of_classes():
    """Attention ties 2 filters for each channel of the values, 4 for one of queries and keys."""
    model = build("levit")
    result = pruned({"a": 0.0, "qkv": 0.5}, model)
    entry = next(g for g in result.plan.groups if g.name == "qkv")
    assert (entry.width, entry.kept) == (12, 5)  # classes: 7 of those with 2 filters go
    assert widths(result.model)["qkv"] == 32 - 7 * 2
    lost = {members[0]: share for members, share in shares_lost(model, result.plan)}
    assert lost["qkv"] == 14 / 32


def test_one_ratio_for_all_takes_the_same_from_every_group():
    for name in ("chain", "residual", "inception"):
        plan = pruned({"*": 0.5}, build(name)).plan
        for entry in (g for g in plan.groups if not g.reason):
            assert entry.kept == entry.width - entry.width // 2


def test_limits_hold_beside_ratios():
    after = widths(pruned({"*": 0.9}, min_width=3, round_to=2, only=["a", "b"]).model)
    assert after == {**widths(three()), "a": 4, "b": 4}


@pytest.mark.parametrize("name", MODELS)
def test_the_starting_file_names_layers_that_there_are(name, tmp_path):
    model = build(name)
    path = tmp_path / "ratios.json"
    sizes = analyse(model).facts.sizes
    groups = inspect(model, input_shape=sizes).groups
    start = inspect(model, input_shape=sizes).ratios()
    path.write_text(start.to_json(), encoding="utf-8")
    assert not Prune(plan=path)(model).modified
    raised = PruningRatios(dict.fromkeys(start.ratios, 0.5), 0.0)
    expected = [g for g in groups if g.prunable > 1]
    assert Prune(plan=raised, absorb="none")(model).modified or not expected


def test_files_of_ratios(tmp_path):
    path = tmp_path / "ratios.json"
    path.write_text(json.dumps({"ratios": {"a": 0.5}}), encoding="utf-8")
    result = Prune(plan=path)(three())
    assert isinstance(result.plan, PruningPlan)
    assert widths(result.model)["a"] == 4
    path.write_text(json.dumps({"ratios": {"aa": 0.5}}), encoding="utf-8")
    with pytest.raises(OptionError, match="ratios pattern 'aa' matches no layer; close names: a"):
        Prune(plan=path)(three())
    path.write_text(json.dumps({"ratios": {"a": 1}}), encoding="utf-8")
    with pytest.raises(PlanError, match=r"ratios\.json: the ratio of 'a' is 1, not a fraction"):
        Prune(plan=path)(three())
