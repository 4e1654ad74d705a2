"""Plans: what one prune decided, another carries out; and what an edited plan may say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnx_esn.errors import PlanError
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.graph.rewrite.kept import KEPT_KEY
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.plans import FoldedConstant, PruningPlan, SliceEntry, parse_plan
from tests.models import MODELS
from tests.net import Net


def build(name):
    return MODELS[name].build()


def widths(model):
    return {x.name: x.filters for x in analyse(model).layers}


def replay(model, *slices, folded=()):
    return Prune(plan=PruningPlan(slices, (), folded))(model)


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_replays_byte_for_byte(name, tmp_path):
    model = build(name)
    path = tmp_path / "plan.json"
    for ratio, absorb in ((0.3, "constant"), (0.6, "mean")):
        result = Prune(ratio=ratio, absorb=absorb)(model)
        path.write_text(result.plan.to_json(), encoding="utf-8")
        for plan in (result.plan, path, str(path)):
            again = Prune(plan=plan)(build(name))
            assert again.model.SerializeToString() == result.model.SerializeToString()
            assert again.plan == result.plan
        assert parse_plan(json.loads(result.plan.to_json()), PruningPlan) == result.plan


@pytest.mark.parametrize("name", ["tied_zero_biases", "tied_batchnorm_vectors", "siamese"])
def test_a_plan_says_which_users_of_a_shared_tensor_it_means(name):
    model = build(name)
    result = Prune(ratio=0.5, exclude=["b"])(model)
    if name != "siamese":
        assert any(s.users for s in result.plan.slices)
    again = Prune(plan=result.plan)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_nodes_that_share_a_name_are_told_apart():
    model = build("tied_zero_biases")
    for node in model.graph.node:
        node.name = "same"
    result = Prune(ratio=0.5, round_to=2)(model)
    assert Prune(plan=result.plan)(model).model == result.model
    assert all(w in (4, 8, 3) for w in widths(result.model).values())


def test_a_plan_lists_what_became_of_each_group():
    result = Prune(ratio=0.5)(build("hidden_tensor_is_an_output"))
    groups = {g.name: g for g in result.plan.groups}
    assert "graph output" in groups["a"].reason
    assert groups["a"].kept == groups["a"].width == 8
    assert (groups["b"].width, groups["b"].kept, groups["b"].reason) == (6, 3, "")


# Edited plans.


@pytest.mark.parametrize(
    ("tensor", "axis", "removed"),
    [("a.weight", 0, (2,)), ("b.weight", 1, (2,)), ("c.weight", 0, (2,)), ("a.weight", 0, (2, 2))],
)
def test_one_entry_is_enough(tensor, axis, removed):
    """In a residual stream, one entry removes the channel from every layer it is tied to."""
    result = replay(build("residual"), SliceEntry(tensor, axis, removed))
    after = widths(result.model)
    assert (after["a"], after["b"], after["c"]) == (7, 6, 7)
    assert {s.tensor for s in result.plan.slices} >= {"a.weight", "b.weight", "c.weight"}


def test_an_edited_plan_keeps_the_rest_of_the_first():
    model = build("chain_with_batchnorm")
    plan = Prune(ratio=0.4, absorb="none")(model).plan
    kept = tuple(s for s in plan.slices if s.tensor == "a.weight")
    result = Prune(plan=replace(plan, slices=kept))(model)
    assert widths(result.model)["a"] < 8
    assert widths(result.model)["b"] == 6


def test_heads_go_as_wholes_when_only_part_of_one_is_named():
    """Channels that are reshaped to heads × depth: what is left has to form a table."""
    model = build("attention")
    claims = [s for s in Prune(ratio=0.4, absorb="none")(model).plan.slices if s.tensor == "t26"]
    name = claims[0].tensor if claims else None
    weights = [t.name for t in model.graph.initializer if list(t.dims) == [8, 8]]
    result = replay(model, SliceEntry(name or weights[0], 1, (1,)))
    assert result.modified
    onnx.checker.check_model(result.model, full_check=True)


def test_an_empty_plan_changes_nothing():
    model = build("chain")
    result = replay(model)
    assert result.model is model
    assert not result.modified


# Plans that do not fit.


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (SliceEntry("a.wieght", 0, (1,)), r"axis 0 of 'a.wieght'.*close names: a.weight"),
        (SliceEntry("a.weight", 3, (1,)), r"axis 3 of 'a.weight' is not.*channel axes are 0"),
        (SliceEntry("a.weight", 0, (8,)), r"index 8 is outside axis 0 of 'a.weight', size 8"),
        (SliceEntry("fc.weight", 0, (0,)), r"'fc.weight' cannot be sliced: graph output"),
        (SliceEntry("a.weight", 0, tuple(range(8))), r"'a' would lose all of its channels"),
        (
            SliceEntry("a.weight", 0, (1,), ("nobody",)),
            r"'nobody' does not read axis 0.*users are a",
        ),
    ],
)
def test_entries_that_do_not_fit(entry, message):
    with pytest.raises(PlanError, match=message):
        replay(build("flatten"), entry)


@pytest.mark.parametrize(
    ("folded", "message"),
    [
        (FoldedConstant("b", (0.0,) * 5), r"of 'b' has 5 numbers for 6 filters"),
        (FoldedConstant("bb", (0.0,)), r"no layer is called 'bb'; close names: b"),
    ],
)
def test_folded_constants_that_do_not_fit(folded, message):
    with pytest.raises(PlanError, match=message):
        replay(build("chain"), SliceEntry("a.weight", 0, (1,)), folded=(folded,))


def test_a_plan_for_another_model():
    plan = Prune(ratio=0.5)(build("chain")).plan
    with pytest.raises(PlanError):
        Prune(plan=plan)(build("gemm_chain"))


# The record of what is left.


def kept(model):
    return json.loads({p.key: p.value for p in model.metadata_props}[KEPT_KEY])


def test_the_record_names_the_filters_that_are_left():
    model = build("chain_with_batchnorm")
    result = replay(model, SliceEntry("a.weight", 0, (0, 3)))
    norm = next(n for n in model.graph.node if n.op_type == "BatchNormalization")
    assert kept(result.model) == {"a": [1, 2, 4, 5, 6, 7], norm.name: [1, 2, 4, 5, 6, 7]}


def test_two_prunings_compose():
    model = build("chain")
    first = replay(model, SliceEntry("a.weight", 0, (0, 3)))
    second = replay(first.model, SliceEntry("a.weight", 0, (1, 5)), SliceEntry("b.weight", 0, (0,)))
    assert kept(second.model) == {"a": [1, 4, 5, 6], "b": [1, 2, 3, 4, 5]}
    assert [p.key for p in second.model.metadata_props] == ["author", KEPT_KEY]


@pytest.mark.parametrize("text", ["not json", "[1]", '{"a": [9]}'])
def test_a_damaged_record_is_replaced(text):
    model = build("chain")
    model.metadata_props.add(key=KEPT_KEY, value=text)
    result = replay(model, SliceEntry("a.weight", 0, (0,)))
    assert kept(result.model)["a"] == [1, 2, 3, 4, 5, 6, 7]


def test_replay_of_a_weight_read_through_other_nodes():
    """The entry names the stored tensor, at its own axis."""
    model = build("weight_through_transpose")
    (stored,) = [t.name for t in model.graph.initializer if list(t.dims) == [8, 6, 3, 3]]
    result = replay(model, SliceEntry(stored, 1, (4,)))
    assert widths(result.model)["b"] == 5
    dims = {t.name: list(t.dims) for t in result.model.graph.initializer}
    assert dims[stored] == [8, 5, 3, 3]


def test_quantized_weights_are_sliced_with_their_scales():
    model = build("weight_through_dequantize")
    result = Prune(ratio=0.5, absorb="none")(model)
    node = next(n for n in result.model.graph.node if n.op_type == "DequantizeLinear")
    tensors = {t.name: t for t in result.model.graph.initializer}
    weight, scale, zero = (tensors[i] for i in node.input)
    assert weight.dims[0] == scale.dims[0] == zero.dims[0] == widths(result.model)["b"]
    assert weight.data_type == onnx.TensorProto.INT8


def test_unused_parameters_are_gone():
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    model = net.model(net.head(y, 8))
    before = {t.name for t in model.graph.initializer}
    result = Prune(ratio=0.5, absorb="none")(model)
    after = {t.name for t in result.model.graph.initializer}
    assert after <= before
    assert np.prod([t.dims[0] for t in result.model.graph.initializer if t.name == "a.weight"]) == 4
