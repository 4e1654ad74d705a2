"""The command line: every verb end to end on the sample model, exit codes, messages, silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from onnx_esn.cli import cli

ROOT = Path(__file__).parents[1]
MODEL = str(ROOT / "examples" / "fashion_resnet.onnx")
IMAGES = str(ROOT / "calibration" / "fashion-mnist")
LABELED = str(ROOT / "calibration" / "fashion-mnist-labeled")


def run(*args: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, [str(a) for a in args])
    assert result.exit_code == code, result.output + result.stderr
    return result


def fails(*args: object, code: int = 2) -> str:
    result = run(*args, code=code)
    assert "Traceback" not in result.stderr
    errors = [x for x in result.stderr.splitlines() if x.lower().startswith("error")]
    assert len(errors) == 1, result.stderr
    return errors[0]


@pytest.mark.parametrize(
    "verb",
    [
        *("inspect", "prune", "recalibrate", "quantize", "equalize", "rotate", "convert"),
        *("annotate", "compress", "evaluate", "compare", "sweep", "profile"),
    ],
)
def test_help_has_an_example(verb: str) -> None:
    text = run(verb, "--help").output
    assert f"onnx-esn {verb}" in text
    assert "--quiet" in text
    assert "--verbose" in text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, onnx_esn.cli; "
        "sys.exit(any(m in sys.modules for m in ('numpy', 'onnx', 'onnxruntime', 'scipy', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", [["cli.py"], ["-m", "onnx_esn"]])
def test_other_entry_points(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command, "inspect", MODEL, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["schema"] == "onnx-esn/inspection/1"


def test_inspect_json_is_one_document() -> None:
    document = json.loads(run("inspect", MODEL, "--json").stdout)
    assert document["totals"]["macs"] == sum(x["macs"] for x in document["layers"]) > 0
    assert len(document["layers"]) == 16


def test_inspect_groups() -> None:
    text = run("inspect", MODEL).stdout
    assert "336 of 346 channels can be removed (--groups lists them)" in text
    text = run("inspect", MODEL, "--groups").stdout
    assert "conv/Conv +2" in text
    assert "kernel" not in text, "one table, not two"
    assert "stage1/block2/conv2/Conv" not in text
    assert "stage1/block2/conv2/Conv" in run("inspect", MODEL, "--groups", "-v").stdout
    whole = run("inspect", MODEL, "--json").stdout
    assert run("inspect", MODEL, "--groups", "--json").stdout == whole
    group = json.loads(whole)["groups"][0]
    assert (group["granularity"], group["prunable_filters"]) == (1, 48)


def test_ratios_from_a_starting_file(tmp_path: Path) -> None:
    file, out, plan = (tmp_path / name for name in ("ratios.json", "p.onnx", "plan.json"))
    assert f"wrote {file}" in run("inspect", MODEL, "--ratios-out", file).stdout
    document = json.loads(file.read_text())
    document["ratios"]["stage3*"] = 0.5
    file.write_text(json.dumps(document))
    text = run("prune", MODEL, "-o", out, "--plan", file, "--plan-out", plan).stdout
    assert "removed 160 of 560" in text
    again = tmp_path / "again.onnx"
    run("prune", MODEL, "-o", again, "--plan", plan)
    assert again.read_bytes() == out.read_bytes()


def test_only_some_layers(tmp_path: Path) -> None:
    args = ["--only", "stage3*", "--only", "conv*", "--exclude", "stage3.block2*"]
    out = tmp_path / "p.onnx"
    done = run("prune", MODEL, "-o", out, "--ratio", 0.5, *args, "--min-width", 40, "--json")
    details = json.loads(done.stdout)["stages"][0]["details"]
    assert (details["filters_prunable"], details["filters_removed"]) == (64, 24)
    done = run("quantize", MODEL, "-o", out, "--bits", 4, "--only", "stage3*", "--json")
    assert json.loads(done.stdout)["stages"][0]["details"]["quantized_layers"] == 5


def test_prune_exact(tmp_path: Path) -> None:
    out = tmp_path / "p.onnx"
    text = run("prune", MODEL, "-o", out, "--ratio", 0, "--exact").stdout
    assert "0 of them without loss" in text


def test_a_hint_at_slow_widths(tmp_path: Path) -> None:
    out = tmp_path / "p.onnx"
    assert "try --round-to 8" in run("prune", MODEL, "-o", out, "--ratio", 0.3).stdout
    text = run("prune", MODEL, "-o", out, "--ratio", 0.3, "--round-to", 4).stdout
    assert "try --round-to" not in text


def test_prune_then_replay_gives_the_same_bytes(tmp_path: Path, few: str) -> None:
    a, b, plan = tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "plan.json"
    images = ("--images", few)
    run("prune", MODEL, "-o", a, "--ratio", 0.3, *images, "--no-refit", "--plan-out", plan)
    run("prune", MODEL, "-o", b, "--plan", plan)
    assert a.read_bytes() == b.read_bytes()
    # The plan says which filters go; weights are refitted to the images each time.
    run("prune", MODEL, "-o", a, "--ratio", 0.3, *images)
    run("prune", MODEL, "-o", b, "--plan", plan, *images)
    assert a.read_bytes() == b.read_bytes()
    document = json.loads(plan.read_text())
    assert {"schema", "slices", "groups", "folded_constants"} <= document.keys()
    assert document["folded_constants"]


def test_quantize_then_replay_gives_the_same_bytes(tmp_path: Path) -> None:
    a, b, plan = tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "plan.json"
    # Low enough that channels drop out and the budget is shared out again.
    run("quantize", MODEL, "-o", a, "--target-cost", "2.5%", "--plan-out", plan)
    run("quantize", MODEL, "-o", b, "--plan", plan)
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("percent", [12.5, 8.0, 4.0, 2.5])
def test_target_cost_is_what_inspect_prints(tmp_path: Path, percent: float) -> None:
    out = tmp_path / "q.onnx"
    run("quantize", MODEL, "-o", out, "--target-cost", f"{percent}%")
    before = json.loads(run("inspect", MODEL, "--json").stdout)["totals"]["esn_prime"]
    after = json.loads(run("inspect", out, "--json").stdout)["totals"]["esn_prime"]
    assert after <= before * percent / 100
    assert after >= before * percent / 100 * 0.99


def test_prune_target_macs_is_what_inspect_prints(tmp_path: Path) -> None:
    out = tmp_path / "p.onnx"
    run("prune", MODEL, "-o", out, "--target-macs", "50%")
    before = json.loads(run("inspect", MODEL, "--json").stdout)["totals"]["macs"]
    after = json.loads(run("inspect", out, "--json").stdout)["totals"]["macs"]
    assert 0.49 * before <= after <= 0.5 * before


def test_recalibrate(tmp_path: Path, few: str) -> None:
    small, better = tmp_path / "small.onnx", tmp_path / "better.onnx"
    run("prune", MODEL, "-o", small, "--ratio", 0.3, "--absorb", "none")
    done = run("recalibrate", small, "-o", better, "--images", few, "--reference", MODEL, "--json")
    details = json.loads(done.stdout)["stages"][0]["details"]
    assert details["accepted"]
    assert details["divergence_after"] < details["divergence_before"]
    run("recalibrate", small, "-o", better, "--images", few, "--method", "reestimate")


def test_annotate_equals_inspect(tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    run("annotate", MODEL, "-o", out)
    written = {p.key: p.value for p in onnx.load(out).metadata_props}["onnx_esn.inspection"]
    assert json.loads(written) == json.loads(run("inspect", out, "--json").stdout)


def test_compress_writes_model_table_and_report(tmp_path: Path, slim: str, few: str) -> None:
    out, report = tmp_path / "c.onnx", tmp_path / "report.json"
    args = ["compress", slim, "-o", out, "--images", few, "--bits", 4, "--ratio", 0.2]
    text = run(*args, "--report", report).stdout
    for word in ("MACs", "ESN'_d", "file size", "latency", "top-1 agreement", "SNR"):
        assert word in text
    document = json.loads(report.read_text())
    assert document["stages"][0]["stage"] == "prune"
    assert document["evaluation"]["schema"] == "onnx-esn/evaluation/1"
    again = tmp_path / "again.onnx"
    run("compress", slim, "-o", again, *args[4:], "--quiet")
    assert again.read_bytes() == out.read_bytes(), "same command, same bytes"


def test_evaluate_with_labels(tmp_path: Path) -> None:
    document = json.loads(run("evaluate", MODEL, "--images", LABELED, "--json").stdout)
    assert document["models"][0]["accuracy"] is not None


def test_sweep_writes_and_resumes(tmp_path: Path, slim: str, few: str) -> None:
    folder = tmp_path / "sweep"
    args = ["sweep", slim, "--images", few, "-o", folder, "--ratios", "0,.3", "--bits", "3"]
    run(*args)
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    assert {"sweep.csv", "sweep.json", "pareto.png", "pareto.svg"} <= files.keys()
    run(*args)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == files


def test_quiet_says_nothing(tmp_path: Path) -> None:
    done = run("prune", MODEL, "-o", tmp_path / "p.onnx", "--ratio", 0.3, "--quiet")
    assert done.stdout == ""
    assert done.stderr == ""


def test_output_has_no_colour_codes_in_a_pipe() -> None:
    assert "\x1b" not in run("inspect", MODEL).stdout


# Wrong input: one clear line, exit code 2 or 1, nothing written.


def test_missing_model(tmp_path: Path) -> None:
    assert "no such file" in fails("inspect", tmp_path / "none.onnx")


def test_truncated_model(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(Path(MODEL).read_bytes()[:5000])
    assert "broken.onnx" in fails("inspect", broken)


def test_text_instead_of_a_model(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    assert "not an ONNX model" in fails("inspect", text)
    for ending in (".json", ".textproto", ".onnxtxt"):  # which onnx reads as text
        named = tmp_path / f"model{ending}"
        named.write_bytes(b'{"schema": "x"}')
        assert "not an ONNX model" in fails("inspect", named)
        named.write_bytes(Path(MODEL).read_bytes())
        run("inspect", named)
    onnx.save(onnx.load(MODEL), tmp_path / "text.textproto")
    run("inspect", tmp_path / "text.textproto")


def test_output_is_the_input(tmp_path: Path) -> None:
    copy = tmp_path / "m.onnx"
    copy.write_bytes(Path(MODEL).read_bytes())
    assert "is the input itself" in fails("prune", copy, "-o", copy, "--ratio", 0.3)
    assert copy.read_bytes() == Path(MODEL).read_bytes()


def test_output_folder_is_missing(tmp_path: Path) -> None:
    line = fails("prune", MODEL, "-o", tmp_path / "no" / "p.onnx", "--ratio", 0.3)
    assert "does not exist" in line
    plan = tmp_path / "no" / "plan.json"
    line = fails("prune", MODEL, "-o", tmp_path / "p.onnx", "--ratio", 0.3, "--plan-out", plan)
    assert "plan.json" in line
    assert not list(tmp_path.iterdir())


def test_two_outputs_need_two_files(tmp_path: Path) -> None:
    out = tmp_path / "same.onnx"
    line = fails("prune", MODEL, "-o", out, "--ratio", 0.3, "--plan-out", tmp_path / "." / out.name)
    assert "two outputs" in line
    assert not list(tmp_path.iterdir())


def test_the_plan_that_is_read_is_not_overwritten(tmp_path: Path) -> None:
    plan = tmp_path / "ratios.json"
    plan.write_text('{"schema": "onnx-esn/pruning-ratios/1", "default": 0.2, "ratios": {}}')
    before = plan.read_bytes()
    line = fails("prune", MODEL, "-o", tmp_path / "p.onnx", "--plan", plan, "--plan-out", plan)
    assert "is the plan that is read" in line
    assert plan.read_bytes() == before


def test_output_is_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in fails("prune", MODEL, "-o", tmp_path, "--ratio", 0.3)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be written" in fails(
        "prune", MODEL, "-o", tmp_path / "p.onnx", "--ratio", 0.3, code=1
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["prune", MODEL, "-o", "OUT"], "one of ratio"),
        (["prune", MODEL, "-o", "OUT", "--ratio", "1.5"], "not a fraction"),
        (["prune", MODEL, "-o", "OUT", "--target-macs", "lots"], "not a target"),
        (["prune", MODEL, "-o", "OUT", "--ratio", ".3", "--exclude", "*zzz"], "matches no layer"),
        (["prune", MODEL, "-o", "OUT", "--ratio", ".3", "--only", "stge3*"], "close names: stage3"),
        (["prune", MODEL, "-o", "OUT", "--ratio", ".3", "--min-width", "0"], "min-width"),
        (["quantize", MODEL, "-o", "OUT", "--bits", "4", "--only", "*zzz"], "matches no layer"),
        (["prune", MODEL, "-o", "OUT", "--ratio", ".3", "--criterion", "magic"], "signal-norm"),
        (["quantize", MODEL, "-o", "OUT", "--bits", "9"], "1 to 8"),
        (["quantize", MODEL, "-o", "OUT"], "exactly one"),
        (["quantize", MODEL, "-o", "OUT", "--bits", "4", "--target-cost", "5%"], "exactly one"),
        (["compress", MODEL, "-o", "OUT", "--images", IMAGES], "quantize"),
        (["compress", MODEL, "-o", "OUT", "--images", "/nowhere", "--bits", "4"], "/nowhere"),
        (["inspect", MODEL, "--input-shape", "1,3,224,224"], "does not fit"),
        (["inspect", MODEL, "--input-shape", "big"], "not a shape"),
        (["inspect", MODEL, *["--input-shape", "1,1,28,28"] * 2], "NAME:1,3,224,224"),
        (["prune", MODEL, "-o", "OUT", "--plan", "/nowhere.json"], "no such plan"),
    ],
)
def test_wrong_usage(tmp_path: Path, args: list[str], words: str) -> None:
    out = tmp_path / "out.onnx"
    assert words in fails(*[str(out) if a == "OUT" else a for a in args])
    assert not list(tmp_path.iterdir())


def test_budget_out_of_reach(tmp_path: Path) -> None:
    line = fails("prune", MODEL, "-o", tmp_path / "p.onnx", "--target-macs", "0.01%", code=1)
    assert "cannot be reached" in line


def test_tensors_of_the_wrong_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((16, 3, 32, 32), np.float32))
    line = fails(
        "quantize", MODEL, "-o", tmp_path / "q.onnx", "--bits", 4, "--images", tmp_path / "x.npy"
    )
    assert "32" in line
    assert "28" in line


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fails("evaluate", MODEL, "--images", tmp_path / "empty")


def test_reference_of_another_network(tmp_path: Path, few: str) -> None:
    other = ROOT / "examples" / "fashion_resnet.onnx"
    small = tmp_path / "small.onnx"
    run("prune", MODEL, "-o", small, "--ratio", 0.3)
    model = onnx.load(small)
    kept = [p for p in model.metadata_props if p.key != "onnx_esn.kept"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, small)
    line = fails(
        "recalibrate", small, "-o", tmp_path / "r.onnx", "--images", few, "--reference", other
    )
    assert "reestimate" in line


def test_threads_that_no_machine_has_are_refused():
    """onnxruntime would start them all."""
    ending = CliRunner().invoke(cli, ["recalibrate", "m", "--images", "x", "--threads", "100000"])
    assert ending.exit_code == 2
    assert "1<=x<=1024" in ending.output
