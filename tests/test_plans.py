"""Plans as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.errors import PlanError
from onnx_esn.plans import (
    PRUNING_SCHEMA,
    QUANTIZATION_SCHEMA,
    RATIOS_SCHEMA,
    FoldedConstant,
    GroupEntry,
    LayerQuantization,
    MergedChannels,
    PruningPlan,
    PruningRatios,
    QuantizationPlan,
    SliceEntry,
    load_plan,
    load_pruning,
    parse_plan,
)
from onnx_esn.plans.pruning import MOST_IN_A_ROW

names = st.text(min_size=1, max_size=8)
indices = st.sets(st.integers(0, 99), min_size=1, max_size=5).map(lambda s: tuple(sorted(s)))
numbers = st.lists(st.floats(-1e6, 1e6), max_size=4).map(tuple)
some_names = st.lists(names, max_size=3).map(tuple)
plain_plans = st.builds(
    PruningPlan,
    st.lists(st.builds(SliceEntry, names, st.integers(0, 4), indices, some_names)).map(tuple),
    st.lists(
        st.builds(GroupEntry, names, some_names, st.integers(0, 99), st.integers(0, 99), names)
    ).map(tuple),
    st.lists(st.builds(FoldedConstant, names, numbers)).map(tuple),
    st.lists(st.builds(MergedChannels, names, st.integers(0, 4), indices, indices), max_size=2).map(
        tuple
    ),
)
pruning_plans = st.builds(replace, plain_plans, then=st.none() | plain_plans)
ratio = st.floats(0, 1, exclude_max=True)
pruning_ratios = st.builds(PruningRatios, st.dictionaries(names, ratio), st.none() | ratio)
quantization_plans = st.builds(
    QuantizationPlan,
    st.lists(
        st.builds(
            LayerQuantization, names, st.lists(st.integers(0, 8), max_size=4).map(tuple), numbers
        )
    ).map(tuple),
    some_names,
)


@given(pruning_plans)
def test_pruning_plans_survive_json(plan):
    text = plan.to_json()
    assert json.loads(text)["schema"] == PRUNING_SCHEMA
    assert parse_plan(json.loads(text), PruningPlan) == plan


@given(quantization_plans)
def test_quantization_plans_survive_json(plan):
    text = plan.to_json()
    assert json.loads(text)["schema"] == QUANTIZATION_SCHEMA
    assert parse_plan(json.loads(text), QuantizationPlan) == plan


@given(pruning_ratios)
def test_ratios_survive_json(ratios):
    text = ratios.to_json()
    assert json.loads(text)["schema"] == RATIOS_SCHEMA
    assert parse_plan(json.loads(text), PruningRatios) == ratios
    assert list(json.loads(text)["ratios"]) == list(ratios.ratios)  # the order counts


def test_files(tmp_path):
    plan = PruningPlan((SliceEntry("w", 0, (1, 2)),))
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json(), encoding="utf-8")
    assert load_plan(path, PruningPlan) == plan
    assert load_plan(str(path), PruningPlan) == plan
    assert load_plan(plan, PruningPlan) is plan
    assert len(path.read_text().splitlines()) == 8  # one line an entry: made to be edited


def test_a_plan_by_hand_may_leave_out_what_is_not_needed():
    plan = parse_plan({"slices": [{"tensor": "w", "axis": 0, "removed": [3, 1, 3]}]}, PruningPlan)
    assert plan == PruningPlan((SliceEntry("w", 0, (1, 3)),))


SLICE = {"tensor": "w", "axis": 0, "removed": [1]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "a plan is a JSON object"),
        ({}, "'slices' must be a list of objects"),
        ({"slices": 3}, "'slices' must be a list of objects"),
        ({"slices": [3]}, "'slices' must be a list of objects"),
        ({"schema": QUANTIZATION_SCHEMA, "slices": []}, "schema is 'onnx-esn/quantization-plan/1'"),
        ({"slices": [{**SLICE, "tensor": 3}]}, r"'tensor' must be a string in \{"),
        ({"slices": [{**SLICE, "axis": "0"}]}, "'axis' must be an integer"),
        ({"slices": [{**SLICE, "axis": True}]}, "'axis' must be an integer"),
        ({"slices": [{**SLICE, "axis": -1}]}, "'axis' must be an integer from 0"),
        ({"slices": [{**SLICE, "removed": 1}]}, "'removed' must be a list of integers from 0"),
        ({"slices": [{**SLICE, "removed": [-1]}]}, "'removed' must be a list of integers from 0"),
        ({"slices": [{**SLICE, "removed": [1.5]}]}, "'removed' must be a list of integers from 0"),
        ({"slices": [{**SLICE, "users": "conv"}]}, "'users' must be a list of strings"),
        (
            {"slices": [], "groups": [{"name": "g", "width": 1, "kept": 1, "members": 3}]},
            "'members' must be a list of strings",
        ),
        (
            {"slices": [], "folded_constants": [{"node": "n", "bias": ["1"]}]},
            "'bias' must be a list of numbers",
        ),
        (
            {"slices": [], "folded_constants": [{"node": "n", "bias": [float("nan")]}]},
            "'bias' must be a list of numbers",
        ),
        ({"slices": [], "folded_constant": []}, "no field 'folded_constant'; did you mean 'folded"),
        ({"slices": [], "x": 1}, "no field 'x'; it has schema, slices, groups"),
        ({"slices": [], "then": []}, "'then' must be a plan"),
        ({"slices": [], "then": {"slices": 3}}, "plan: then: 'slices' must be a list of objects"),
        ({"slices": [], "merged": [{"node": "n"}]}, "'axis' must be an integer"),
    ],
)
def test_wrong_fields_are_named(document, message):
    with pytest.raises(PlanError, match=message):
        parse_plan(document, PruningPlan)


def test_plans_within_plans_have_an_end():
    """Python 3.13 reads as many as Python itself then cannot follow."""
    document = {"slices": []}
    for _ in range(MOST_IN_A_ROW - 1):
        document = {"slices": [], "then": document}
    parse_plan(document, PruningPlan).to_json()
    with pytest.raises(PlanError, match="plan: more than 100 plans, each in 'then' of the other"):
        parse_plan({"slices": [], "then": document}, PruningPlan)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"ratios": {}, "defualt": 0.5}, "no field 'defualt'; did you mean 'default'"),
        ({"ratios": []}, "'ratios' must be an object"),
        ({"ratios": {"a": 1}}, "the ratio of 'a' is 1, not a fraction"),
        ({"ratios": {"a": -0.5}}, "the ratio of 'a' is -0.5, not a fraction"),
        ({"ratios": {"a": True}}, "the ratio of 'a' is True, not a fraction"),
        ({"ratios": {"a": "0.5"}}, "the ratio of 'a' is '0.5', not a fraction"),
        ({"ratios": {"a": float("nan")}}, "not a fraction"),
        ({"default": 1.5}, "'default' is 1.5, not a fraction"),
        ({"schema": PRUNING_SCHEMA}, "expected 'onnx-esn/pruning-ratios/1'"),
    ],
)
def test_wrong_ratios_are_named(document, message):
    with pytest.raises(PlanError, match=message):
        parse_plan(document, PruningRatios)


def test_ratios_are_checked_where_they_are_made():
    with pytest.raises(PlanError, match="the ratio of 'a' is 2, not a fraction"):
        PruningRatios({"a": 2})


def test_what_prune_reads(tmp_path):
    path = tmp_path / "plan.json"
    for text, kind in (
        ('{"slices": []}', PruningPlan),
        ('{"ratios": {}}', PruningRatios),
        (PruningPlan(()).to_json(), PruningPlan),
        (PruningRatios({}, 0.5).to_json(), PruningRatios),
    ):
        path.write_text(text, encoding="utf-8")
        plan = load_pruning(path)
        assert isinstance(plan, kind)
        assert load_pruning(plan) is plan
    for text in ("[]", "{}", QuantizationPlan(()).to_json()):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(PlanError, match=r"plan\.json: "):
            load_pruning(path)


def test_a_key_written_twice_is_refused(tmp_path):
    """The second one would win in silence."""
    path = tmp_path / "plan.json"
    path.write_text('{"ratios": {"a": 0, "a": 0.5}}', encoding="utf-8")
    with pytest.raises(PlanError, match="'a' is there twice"):
        load_pruning(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1, 2"])
def test_files_that_are_no_plans(tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=r"plan\.json: not a plan"):
        load_plan(path, PruningPlan)


def test_missing_files(tmp_path):
    with pytest.raises(PlanError, match=r"nowhere\.json: no such plan file"):
        load_plan(tmp_path / "nowhere.json", PruningPlan)
    with pytest.raises(PlanError, match="not a plan"):
        load_plan(tmp_path, PruningPlan)


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text('{"slices": 3}', encoding="utf-8")
    with pytest.raises(PlanError, match=r"plan\.json: 'slices'"):
        load_plan(path, PruningPlan)
