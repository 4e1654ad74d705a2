"""`profile` and `prune --granularity spatial` on the command line."""

from __future__ import annotations

import json
import re

import onnx

from onnx_esn.plans.latency_model import load_latency
from tests.docs_console import text_of
from tests.test_cli import MODEL, fails, run
from tests.test_docs import keys_of


def test_profile_writes_what_prune_reads(tmp_path):
    out = tmp_path / "latency.json"
    quick = ("--repeat", 2, "--points", 4)
    result = run("profile", MODEL, "-o", out, *quick)
    assert f"wrote {out}" in result.output.replace("\n", "")
    latency = load_latency(out)
    assert len(latency.layers) == 16
    assert latency.about["threads"] == 1
    document = json.loads(run("profile", MODEL, "-o", out, *quick, "--json").output)
    assert document["schema"] == "onnx-esn/profile/1"
    assert document["latency_model"] == str(out)
    text = text_of("docs/json.md")
    fields = keys_of(document) | keys_of({k: v for k, v in latency.about.items() if k != "input"})
    assert {f for f in fields if f"`{f}`" not in text} == set()


def test_profile_says_what_is_wrong(tmp_path):
    assert "folder" in fails("profile", MODEL, "-o", tmp_path)
    bad = fails("profile", MODEL, "-o", tmp_path / "x", "--input-shape", "1,3,28,28")
    assert "does not fit" in bad
    assert not (tmp_path / "x").exists()


def test_spatial_pruning_and_its_plan(tmp_path):
    out, plan = tmp_path / "small.onnx", tmp_path / "plan.json"
    spatial = ("--granularity", "spatial")
    told = run("prune", MODEL, "-o", out, *spatial, "--target-macs", "70%", "--plan-out", plan)
    assert re.search(r"kernel positions \d+ are cut off \(\d+ layers with smaller", told.output)
    assert "zeroed" not in told.output
    again = tmp_path / "again.onnx"
    run("prune", MODEL, "-o", again, "--plan", plan)
    assert again.read_bytes() == out.read_bytes()
    kernels = {tuple(t.dims[2:]) for t in onnx.load(out).graph.initializer if len(t.dims) == 4}
    assert kernels - {(3, 3), (1, 1)}
    zeros = run("prune", MODEL, "-o", out, *spatial, "--ratio", 0.3, "--json").output
    (stage,) = json.loads(zeros)["stages"]
    assert stage["details"]["positions_zeroed"] > 0
    text = text_of("docs/json.md")
    fields = set(stage["details"]) | set(json.loads(plan.read_text())["layers"][0])
    assert {f for f in fields if f"`{f}`" not in text} == set()
    told = run("prune", MODEL, "-o", out, *spatial, "--ratio", 0.3).output
    assert "zeroed, which saves no MACs" in told.replace("\n", " ")


def test_spatial_pruning_says_what_is_wrong(tmp_path):
    out = tmp_path / "small.onnx"
    spatial = ("prune", MODEL, "-o", out, "--granularity", "spatial")
    assert "say how much" in fails(*spatial)
    assert "cannot be reached by smaller kernels" in fails(*spatial, "--target-macs", "1%", code=1)
    assert "speaks of channels" in fails(*spatial, "--ratio", 0.2, "--min-width", 4)
    assert not out.exists()
