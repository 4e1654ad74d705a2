"""`quantize --quantizer` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_esn.plans import encode_codes
from tests.passes.pruning.test_pruning import dead
from tests.test_cli import MODEL, fails, run


def test_mid_tread_on_images(tmp_path: Path, slim: str, few: str) -> None:
    out, plan, again = (tmp_path / n for n in ("q.onnx", "plan.json", "again.onnx"))
    args = ["--bits", 3, "--quantizer", "mid-tread", "--images", few, "--plan-out", plan]
    details = json.loads(run("quantize", slim, "-o", out, *args, "--json").stdout)
    assert details["stages"][0]["details"]["quantized_layers"] == 16
    assert json.loads(plan.read_text())["quantizer"] == "mid-tread"
    # Matching scales filters: their codes stay readable.
    layers = json.loads(run("inspect", out, "--json").stdout)["layers"]
    assert all(x["quantized"] and set(x["bits"]) <= {"0", "2", "3"} for x in layers)
    run("quantize", slim, "-o", again, "--plan", plan)
    assert again.read_bytes() == out.read_bytes()
    # What is on a grid stays, whichever quantizer is asked for now.
    for quantizer in ("mid-tread", "mid-rise"):
        run("quantize", out, "-o", again, "--bits", 4, "--quantizer", quantizer)
        assert again.read_bytes() == out.read_bytes()


def test_mid_tread_to_a_budget(tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    done = run(
        "quantize", MODEL, "-o", out, "--target-cost", "9%", "--quantizer", "mid-tread", "--json"
    )
    details = json.loads(done.stdout)["stages"][0]["details"]
    totals = json.loads(run("inspect", out, "--json").stdout)["totals"]
    assert totals["esn_prime"] == details["cost_after"] <= details["target"]


@pytest.mark.parametrize("absorbable", [True, False])
def test_zero_filters_that_cannot_go_are_no_stage(tmp_path: Path, absorbable: bool) -> None:
    """Behind a normalization over the image nobody knows what a constant becomes."""
    onnx.save(dead(absorbable), tmp_path / "net.onnx")
    np.save(tmp_path / "set.npy", np.random.default_rng(0).normal(size=(8, 3, 6, 6)).astype("f4"))
    args = ["--images", tmp_path / "set.npy", "--bits", 4, "--method", "nearest", "--json"]
    done = run("compress", tmp_path / "net.onnx", "-o", tmp_path / "q.onnx", *args)
    document = json.loads(done.stdout)
    assert document["stages"][0]["details"]["pruned_filters"] == 3
    assert ("remove zero filters" in [s["stage"] for s in document["stages"]]) == absorbable


def test_mid_rise_is_the_default(tmp_path: Path) -> None:
    out, same, plan = (tmp_path / n for n in ("a.onnx", "b.onnx", "plan.json"))
    run("quantize", MODEL, "-o", out, "--bits", 2, "--plan-out", plan)
    run("quantize", MODEL, "-o", same, "--bits", 2, "--quantizer", "mid-rise")
    assert same.read_bytes() == out.read_bytes()
    assert "quantizer" not in json.loads(plan.read_text())


def test_one_line_for_what_cannot_be(tmp_path: Path) -> None:
    out, plan = tmp_path / "q.onnx", tmp_path / "plan.json"
    tread = ["--quantizer", "mid-tread"]
    assert "give 2 to 8" in fails("quantize", MODEL, "-o", out, "--bits", 1, *tread)
    assert "mid-rise" in fails("quantize", MODEL, "-o", out, "--bits", 2, "--quantizer", "flat")
    run("quantize", MODEL, "-o", out, "--bits", 2, "--plan-out", plan)
    assert "leave --quantizer out" in fails("quantize", MODEL, "-o", out, "--plan", plan, *tread)


@pytest.mark.parametrize(("codes", "words"), [("!", "not base64"), (None, "has codes for 2")])
def test_a_damaged_plan(codes: str | None, words: str, tmp_path: Path) -> None:
    out, plan = tmp_path / "q.onnx", tmp_path / "plan.json"
    run("quantize", MODEL, "-o", out, "--bits", 2, "--plan-out", plan)
    document = json.loads(plan.read_text())
    layer = document["layers"][3]
    layer["codes"] = codes or encode_codes([[0.5, 0.5]])
    plan.write_text(json.dumps(document))
    line = fails("quantize", MODEL, "-o", tmp_path / "r.onnx", "--plan", plan)
    assert words in line
    assert layer["layer"] in line
