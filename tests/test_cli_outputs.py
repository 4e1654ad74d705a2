"""Where results go: never over what is read, and nowhere is said before the work starts."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest

from onnx_esn.cli.output import Output
from tests.test_cli import IMAGES, MODEL, fails, run

POLICY = '{"schema": "onnx-esn/bit-policy/1", "layers": [{"layer": "conv/Conv", "bits": 4}]}'


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    W = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    for epoch in range(2):
        np.savez(folder / f"epoch_{epoch}.npz", conv=W * (1 + epoch))
    return folder


@pytest.mark.parametrize("option", ["-o", "--plan-out"])
def test_a_policy_that_is_read_is_not_overwritten(tmp_path, option):
    policy = tmp_path / "policy.json"
    policy.write_text(POLICY)
    places = {"-o": tmp_path / "q.onnx"} | {option: policy}
    flat = [x for pair in places.items() for x in pair]
    assert "is the policy that is read" in fails("quantize", MODEL, "--policy", policy, *flat)
    assert policy.read_text() == POLICY
    assert [p.name for p in tmp_path.iterdir()] == ["policy.json"]


@pytest.mark.parametrize("option", ["-o", "--plan-out"])
def test_a_latency_model_that_is_read_is_not_overwritten(tmp_path, option):
    latency = tmp_path / "latency.json"
    latency.write_text("{}")
    places = {"-o": tmp_path / "p.onnx"} | {option: latency}
    flat = [x for pair in places.items() for x in pair]
    asked = ("--selection", "qcqp", "--target-latency", "50%", "--latency-model", latency)
    assert "is the latency model that is read" in fails("prune", MODEL, *asked, *flat)
    assert latency.read_text() == "{}"
    assert [p.name for p in tmp_path.iterdir()] == ["latency.json"]


def test_folders_that_cannot_be_made_are_refused_before_the_work(tmp_path, series):
    file = tmp_path / "file"
    file.write_text("")
    for verb in (("analyze", MODEL), ("trace", series), ("sweep", MODEL, "--images", IMAGES)):
        for place in (file, file / "below"):
            assert f"{file}: is a file; name a folder to write" in fails(*verb, "-o", place)
    # Nothing is made where the input turns out to be wrong.
    new = tmp_path / "new"
    fails("analyze", tmp_path / "none.onnx", "-o", new)
    fails("trace", tmp_path / "none.onnx", "-o", new)
    assert not new.exists()


@pytest.mark.parametrize("args", [(), ("--json",)])
def test_a_full_disk_behind_stdout_is_one_line(monkeypatch, series, args):
    class Full(io.TextIOWrapper):
        def write(self, text):
            raise OSError(28, "No space left on device")

    def full(command):
        monkeypatch.setattr(sys, "stdout", Full(io.BytesIO()))
        command()

    out = Output(quiet=False, verbose=0, as_json=bool(args))
    from onnx_esn.errors import OutputError

    with pytest.raises(OutputError, match="standard output: No space left on device"):
        full(lambda: (out.say("one"), out.document({})))


def test_without_stdout_there_is_nothing_to_say(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    out = Output(quiet=False, verbose=0, as_json=False)
    out.say("one")
    Output(quiet=False, verbose=0, as_json=True).document({})


def test_profile_has_no_seed_below_0(tmp_path):
    assert "--seed" in fails("profile", MODEL, "-o", tmp_path / "l.json", "--seed", -1)


def test_spatial_pruning_that_removes_nothing_says_so(tmp_path):
    spatial = ("prune", MODEL, "-o", tmp_path / "p.onnx", "--granularity", "spatial")
    assert "nothing was removed" in run(*spatial, "--ratio", 0.0001).stderr
    assert "nothing was removed" in run(*spatial, "--ratio", 0.5, "--only", "fc*").stderr
    assert "nothing was removed" not in run(*spatial, "--ratio", 0.2).stderr
    assert "nothing was removed" not in run(*spatial, "--ratio", 0).stderr


def test_the_least_latency_that_is_named_can_be_had(tmp_path):
    layers = {
        x["name"]: {"c0": 1e-5 / 3, "c1": 1e-7 / 3, "c2": 1e-7 / 7, "c3": 1e-8 / 9}
        for x in json.loads(run("inspect", MODEL, "--json").stdout)["layers"]
    }
    latency = tmp_path / "latency.json"
    head = {"format": "onnx-esn/latency-model", "version": 1, "rest": 1e-4 / 7}
    latency.write_text(json.dumps({**head, "layers": layers}))
    asked = ("prune", MODEL, "-o", tmp_path / "p.onnx", "--selection", "qcqp")
    asked += ("--latency-model", latency, "--solver-time", 1, "--target-latency")
    line = fails(*asked, "0.00001ms", code=1)
    least = line.split("may be left ")[1].split()[0]
    run(*asked, least)
