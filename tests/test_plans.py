"""Plans as JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.errors import PlanError
from onnx_esn.plans import (
    PRUNING_SCHEMA,
    QUANTIZATION_SCHEMA,
    FoldedConstant,
    GroupEntry,
    LayerQuantization,
    PruningPlan,
    QuantizationPlan,
    SliceEntry,
    load_plan,
    parse_plan,
)

names = st.text(min_size=1, max_size=8)
indices = st.sets(st.integers(0, 99), min_size=1, max_size=5).map(lambda s: tuple(sorted(s)))
numbers = st.lists(st.floats(-1e6, 1e6), max_size=4).map(tuple)
some_names = st.lists(names, max_size=3).map(tuple)
pruning_plans = st.builds(
    PruningPlan,
    st.lists(st.builds(SliceEntry, names, st.integers(0, 4), indices, some_names)).map(tuple),
    st.lists(
        st.builds(GroupEntry, names, some_names, st.integers(0, 99), st.integers(0, 99), names)
    ).map(tuple),
    st.lists(st.builds(FoldedConstant, names, numbers)).map(tuple),
)
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
    ],
)
def test_wrong_fields_are_named(document, message):
    with pytest.raises(PlanError, match=message):
        parse_plan(document, PruningPlan)


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
