"""`prune --selection qcqp` on the command line, on the sample model."""

from __future__ import annotations

import json

import onnx
from click.testing import CliRunner

from onnx_esn.cli import cli
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.plans.latency_model import LatencyModel, LayerLatency
from tests.test_docs import SAMPLE


def run(*args):
    return CliRunner().invoke(cli, [str(a) for a in args])


def test_targets_report_and_plan(tmp_path):
    small, again, plan = (tmp_path / n for n in ("small.onnx", "again.onnx", "plan.json"))
    options = ["--selection", "qcqp", "--solver-time", 20, "--only", "stage3*"]
    targets = ["--target-macs", "90%", "--target-params", "70%"]
    result = run("prune", SAMPLE, "-o", small, *options, *targets, "--plan-out", plan)
    assert result.exit_code == 0, result.output
    assert "channels worth" in result.output
    assert "weights 174k → 1" in result.output
    assert run("prune", SAMPLE, "-o", again, "--plan", plan).exit_code == 0
    assert onnx.load(again) == onnx.load(small)


def test_latency_from_a_file(tmp_path):
    layers = {
        x.name: LayerLatency(1e-5, 1e-7, 1e-7, 1e-8) for x in analyse(onnx.load(SAMPLE)).layers
    }
    file = tmp_path / "latency.json"
    file.write_text(LatencyModel(layers, 1e-4).to_json(), encoding="utf-8")
    options = ["--selection", "qcqp", "--target-latency", "70%", "--solver-time", 20]
    result = run(
        "prune", SAMPLE, "-o", tmp_path / "a.onnx", *options, "--latency-model", file, "--json"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["stages"][0]["details"]["selection"]
    assert list(found["budgets"]) == ["latency"]
    budget = found["budgets"]["latency"]
    assert 0.98 * budget["limit"] < budget["after"] <= budget["limit"]


def test_what_is_wrong_is_one_line(tmp_path):
    options = ["--selection", "qcqp", "--target-latency", "70%"]
    target = ["-o", tmp_path / "a.onnx"]
    result = run("prune", SAMPLE, *target, *options, "--latency-model", tmp_path / "none.json")
    assert result.exit_code == 2
    assert "no such latency model file" in result.output
    result = run("prune", SAMPLE, *target, "--selection", "qcqp", "--target-params", "10")
    assert result.exit_code == 1
    assert "10 weights cannot be reached by pruning" in result.output
