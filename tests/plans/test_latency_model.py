"""The latency model's file: what is written is read back; what is wrong is named."""

from __future__ import annotations

import json

import pytest

from onnx_esn.errors import PlanError
from onnx_esn.plans.latency_model import LatencyModel, LayerLatency, load_latency

MODEL = LatencyModel(
    {"conv1": LayerLatency(1e-5, 2e-7, 3e-8, 4e-9, 0.97), "fc": LayerLatency(1e-6, 0, 0, 1e-9)},
    3e-4,
    {"threads": 1, "machine": "a"},
)


def document(**changes):
    return json.loads(MODEL.to_json()) | changes


def test_what_is_written_is_read_back(tmp_path):
    file = tmp_path / "latency.json"
    file.write_text(MODEL.to_json(), encoding="utf-8")
    assert load_latency(file) == MODEL
    assert LatencyModel.from_json(MODEL.to_json()) == MODEL
    assert load_latency(MODEL) is MODEL


def test_seconds_are_bilinear_in_the_widths():
    layer = LayerLatency(1.0, 2.0, 3.0, 5.0)
    assert layer.seconds(7, 11) == 1 + 2 * 7 + 3 * 11 + 5 * 77


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "x"}, "not a latency model"),
        ({"version": 2}, "version 2"),
        ({"unit": "ms"}, "unit is 'ms'"),
        ({"layers": []}, "'layers' must be an object"),
        ({"layers": {"a": 1}}, "layer 'a' must be an object"),
        ({"layers": {"a": {"c0": 1, "c1": 1, "c3": 1}}}, "layer 'a' has no 'c2'"),
        ({"layers": {"a": {"c0": "1", "c1": 1, "c2": 1, "c3": 1}}}, "layer 'a': 'c0'"),
        ({"rest": -1}, "a time below 0"),
        ({"rest": "x"}, "'rest' must be a number in"),
        ({"rest": None}, "'rest' must be a number in"),
        ({"layers": {"a": {"c0": 1, "c1": 1, "c2": -1e-9, "c3": 1}}}, "'a': 'c2' is -1e-09, below"),
    ],
)
def test_a_wrong_field_is_named(changes, message):
    with pytest.raises(PlanError, match=message):
        LatencyModel.from_json(document(**changes), "f.json")


def test_files_that_are_none(tmp_path):
    with pytest.raises(PlanError, match="no such latency model file"):
        load_latency(tmp_path / "none.json")
    with pytest.raises(PlanError, match="not a latency model"):
        LatencyModel.from_json("{")
    with pytest.raises(PlanError, match=r"not a latency model: .*Is a directory"):
        load_latency(tmp_path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\xff"])
def test_what_is_no_json_is_no_latency_model(tmp_path, text):
    file = tmp_path / "f.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(PlanError, match=r"f\.json: not a latency model: "):
        load_latency(file)
    with pytest.raises(PlanError, match=r"f: not a latency model: "):
        LatencyModel.from_json(text, "f")
