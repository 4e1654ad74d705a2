"""What the user may say of single layers: only, exclude, the least width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnx_esn.errors import BudgetError, OptionError
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.quantizing.quantization import Quantize
from onnx_esn.plans import PruningPlan, PruningRatios
from tests.models import MODELS
from tests.net import Net
from tests.passes.tiny import two_convs


def build(name):
    return MODELS[name].build()


def widths(model):
    return {x.name: x.filters for x in analyse(model).layers}


def three():
    """Two plain layers and, behind them, a residual stream of two."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.conv(y, 8, 6, name="b"))
    stream = net.conv(y, 6, 8, name="s[0]")
    y = net.op("Add", stream, net.conv(net.relu(stream), 8, 8, name="s[1]"))
    return net.model(net.head(net.relu(y), 8))


def reasons(result):
    return {s.node: s.reason for s in result.skipped}


def pruned(ratios, model=None, **options):
    return Prune(plan=PruningRatios(ratios), absorb="none", **options)(model or three())


# Only and exclude.


@pytest.mark.parametrize("pattern", ["b", "b.weight", "?"])
def test_only_what_matches_loses_filters(pattern):
    result = Prune(ratio=0.5, only=[pattern], exclude=["a"], absorb="none")(three())
    assert widths(result.model) == {**widths(three()), "b": 3}
    assert result.details["filters_prunable"] == 6
    assert reasons(result)["s[0]"] == "no 'only' pattern matches it"


def test_a_group_that_reaches_over_the_selection_stays():
    result = Prune(ratio=0.5, only=["a", "s[0]"], absorb="none")(three())
    assert widths(result.model) == {**widths(three()), "a": 4}
    expected = "'s[0]' shares channels with 's[1]', which no 'only' pattern matches"
    assert reasons(result)["s[0]"] == expected
    result = Prune(ratio=0.5, only=["a", "s*"], absorb="none")(three())
    assert widths(result.model)["s[0]"] == widths(result.model)["s[1]"] == 4


def test_exclude_is_taken_from_only():
    result = Prune(ratio=0.5, only=["*"], exclude=["b"], absorb="none")(three())
    assert widths(result.model) == {**widths(three()), "a": 4, "s[0]": 4, "s[1]": 4}
    result = Prune(ratio=0.5, only=["?", "s*"], exclude=["s[1]"], absorb="none")(three())
    assert widths(result.model)["s[0]"] == 8


@pytest.mark.parametrize("option", ["only", "exclude"])
def test_a_pattern_without_a_match_names_its_option_and_close_names(option):
    with pytest.raises(
        OptionError, match=rf"{option} pattern 'gem_\*' matches no layer; close.*gemm"
    ):
        Prune(ratio=0.5, **{option: ["gem_*"]})(build("chain"))
    with pytest.raises(
        OptionError, match=rf"{option} pattern 'Conv_1' matches no layer; close.*Conv_0"
    ):
        Quantize(bits=4, **{option: ("Conv_1",)})(two_convs())


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_layer_outside_the_selection_changes_its_width(data):
    model = build(data.draw(st.sampled_from(sorted(MODELS))))
    before = widths(model)
    assume(before)
    only = data.draw(st.lists(st.sampled_from(sorted(before)), min_size=1, unique=True))
    exclude = data.draw(st.lists(st.sampled_from(sorted(before)), max_size=2))
    result = Prune(ratio=0.6, only=only, exclude=exclude, absorb="none")(model)
    after = widths(result.model)
    changed = {x for x in before if after[x] != before[x]}
    assert changed <= set(only) - set(exclude)


def test_quantize_only():
    model = two_convs()
    result = Quantize(bits=4, only=("Conv*",), exclude=("Conv_3",))(model)
    assert [x.quantized for x in inspect(result.model).layers] == [True, False, False]
    assert reasons(result) == {
        "Conv_3": "excluded by 'Conv_3'",
        "Gemm_6": "no 'only' pattern matches it",
    }
    budget = Quantize(target_cost="40%", only=("Conv*",))(model)
    assert not inspect(budget.model).layers[2].quantized
    with pytest.raises(OptionError, match="edit the plan"):
        Quantize(plan=result.plan, only=("Conv*",))


# The least width.


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(sorted(MODELS)),
    st.floats(0, 0.99),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from(["layer", "global"]),
)
def test_widths_respect_every_limit(name, ratio, least, multiple, scope):
    model = build(name)
    options = {"scope": scope, "min_width": least, "round_to": multiple, "absorb": "none"}
    result = Prune(ratio=ratio, **options)(model)
    before, after = widths(model), widths(result.model)
    for layer, width in after.items():
        assert width >= min(least, before[layer]), layer
        assert width == before[layer] or width % multiple == 0, layer
    assert result.details["filters_removed"] <= ratio * result.details["filters_prunable"] + 1e-9
    assert result.details["layers_uneven"] == sum(
        after[x] != before[x] and after[x] % 4 != 0 for x in after
    )


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["chain", "residual", "depthwise_multiplier_two", "gated_linear_unit"]),
    st.floats(0.2, 1),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from(["layer", "global"]),
)
def test_a_target_respects_the_least_width(name, share, least, multiple, scope):
    model = build(name)
    goal = share * inspect(model, groups=False).totals.macs
    options = {"scope": scope, "min_width": least, "round_to": multiple, "absorb": "none"}
    try:
        result = Prune(target_macs=goal, **options)(model)
    except BudgetError:
        return
    before, after = widths(model), widths(result.model)
    assert result.details["macs_after"] <= goal
    assert all(after[x] >= min(least, before[x]) for x in before)


def test_what_one_layer_has_to_keep_is_not_taken_from_the_others():
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 4, name="a"))
    y = net.relu(net.conv(y, 4, 16, name="b"))
    model = net.model(net.head(y, 16))
    after = widths(Prune(ratio=0.5, min_width=4, absorb="none")(model).model)
    assert (after["a"], after["b"]) == (4, 8)
    ranked = Prune(ratio=0.5, min_width=4, scope="global", absorb="none")(model)
    assert ranked.details["filters_removed"] == 10


def test_the_least_width_is_reached():
    result = Prune(ratio=0.9, min_width=5, absorb="none")(build("chain"))
    assert widths(result.model) == {**widths(build("chain")), "a": 5, "b": 5}
    with pytest.raises(BudgetError, match="with 5 filters left per group"):
        Prune(target_macs="5%", min_width=5)(build("chain"))
    with pytest.raises(OptionError, match="min_width must be at least 1, not 0"):
        Prune(ratio=0.5, min_width=0)


# What does not go together.


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ratio", 0.5),
        ("only", ["a"]),
        ("exclude", ["a"]),
        ("round_to", 2),
        ("min_width", 2),
        ("exact", True),
    ],
)
def test_a_replayed_plan_takes_no_other_wishes(option, value):
    with pytest.raises(OptionError, match=f"{option} does not go with a plan that is replayed"):
        Prune(plan=PruningPlan(()), **{option: value})(build("chain"))


def test_ratios_know_no_global_ranking():
    with pytest.raises(OptionError, match="scope 'global' does not go with ratios"):
        pruned({"a": 0.5}, scope="global")
    with pytest.raises(OptionError, match="one of ratio, target_macs or plan"):
        pruned({"a": 0.5}, target_macs="50%")


def test_scores_decide_within_a_group():
    model = build("chain")
    (entry,) = [s for s in pruned({"b": 0.34}, model).plan.slices if s.tensor == "b.weight"]
    plain = Prune(ratio=0.34, only=["b"], absorb="none")(model).plan
    assert entry in plain.slices
    assert len(entry.removed) == 2
    assert np.all(np.diff(entry.removed) > 0)
