"""Real runs of the command line with --report."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import onnx_esn
from onnx_esn.cli import cli
from onnx_esn.errors import OnnxEsnError
from onnx_esn.pipeline import CompressionResult
from onnx_esn.report import numbers
from onnx_esn.report.page import compression_document, compression_report, report_page
from tests.models import MODELS
from tests.report.html import Page

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "fashion_resnet.onnx"
HOSTILE = "</script><script>alert('x')</script>"
WEIGHT = f"w{HOSTILE}"


def run(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == code, result.output + result.stderr
    return result


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Twenty samples, so that the tests stay quick."""
    folder = tmp_path_factory.mktemp("sets")
    samples = np.random.default_rng(0).normal(size=(20, 1, 28, 28)).astype(np.float32)
    np.save(folder / "some.npy", samples)
    return folder / "some.npy"


@pytest.fixture(scope="module")
def compressed(tmp_path_factory, few):
    """The folder of a compression with a report, and what it printed."""
    folder = tmp_path_factory.mktemp("compressed")
    shutil.copy(MODEL, folder / "my model.onnx")
    done = run(
        "compress", folder / "my model.onnx", "-o", folder / "small.onnx", "--images", few,
        "--bits", 4, "--ratio", 0.25, "--method", "nearest", "--report", folder / "report",
        "--json",
    )  # fmt: skip
    return folder, json.loads(done.stdout)


def test_the_page_is_made_of_what_is_printed(compressed):
    folder, document = compressed
    assert {p.name for p in (folder / "report").iterdir()} == {"report.html", "report.json"}
    assert json.loads((folder / "report" / "report.json").read_text()) == document
    page = (folder / "report" / "report.html").read_text()
    assert page == report_page(document)
    assert document["outputs"] == {
        "model": str(folder / "small.onnx"),
        "report": str(folder / "report"),
    }


def test_its_figures_are_those_of_the_other_verbs(compressed):
    folder, document = compressed
    report = document["report"]
    for side, name in (("before", "my model.onnx"), ("after", "small.onnx")):
        told = json.loads(run("inspect", folder / name, "--json").stdout)
        assert report[side]["macs"] == told["totals"]["macs"]
        assert report[side]["esn_prime"] == told["totals"]["esn_prime"]
        by_name = {layer["name"]: layer for layer in told["layers"]}
        for layer in report["layers"]:
            for key in ("filters", "macs", "esn_prime", "bits"):
                assert layer[side][key] == by_name[layer[side]["name"]][key]
    assert report["model"]["bytes"] == (folder / "my model.onnx").stat().st_size
    assert report["output"]["bytes"] == (folder / "small.onnx").stat().st_size
    kept = json.loads(
        next(p.value for p in onnx.load(folder / "small.onnx").metadata_props
             if p.key == "onnx_esn.kept")
    )  # fmt: skip
    for layer in report["layers"]:
        gone = [i for i, code in enumerate(layer["filters"]) if code == "x"]
        assert gone == layer["removed"]
        assert len(layer["filters"]) == layer["before"]["filters"]
        assert bool(gone) == (layer["name"] in kept)
        assert layer["output_snr_db"] is not None
    text = Page((folder / "report" / "report.html").read_text()).text
    for model in document["evaluation"]["models"]:
        assert numbers.si(model["esn_prime"]) in text
        assert numbers.milliseconds(model["latency"]["median_ms"]) in text
    assert numbers.percent(document["evaluation"]["models"][1]["agreement"]["top1"]) in text


def test_the_command_in_the_page_makes_the_same_bytes(compressed, tmp_path):
    """As it stands there, run by a shell."""
    folder, document = compressed
    page = (folder / "report" / "report.html").read_text()
    command = Page(re.search(r'<pre[^>]*><code id="command">.*?</code></pre>', page, re.S)[0])
    words = shlex.split(command.text.replace("\\", ""))
    assert words == [shlex.split(word)[0] for word in document["report"]["command"]]
    before = (folder / "small.onnx").read_bytes()
    first = (folder / "report" / "report.html").read_text()
    (folder / "small.onnx").unlink()
    _, *rest = document["report"]["command"]
    line = " ".join([shlex.quote(sys.executable), "-m", "onnx_esn", *rest])
    subprocess.run(["bash", "-c", line], check=True, cwd=ROOT, capture_output=True)
    assert (folder / "small.onnx").read_bytes() == before
    second = (folder / "report" / "report.html").read_text()
    assert unmeasured(first) == unmeasured(second)


def unmeasured(page):
    """Without what is measured: latencies, which the data has too."""
    page = re.sub(r'<script type="application/json".*?</script>', "", page)
    return re.sub(r"<(\w+)[^>]* data-measured>.*?</\1>", "", page)


def test_a_name_that_ends_in_json_still_is_a_file(tmp_path, few):
    run(
        "compress", MODEL, "-o", tmp_path / "s.onnx", "--images", few, "--bits", 4, "--method",
        "nearest", "--report", tmp_path / "figures.json",
    )  # fmt: skip
    assert json.loads((tmp_path / "figures.json").read_text())["command"] == "compress"
    assert {p.name for p in tmp_path.iterdir()} == {"s.onnx", "figures.json"}


@pytest.mark.parametrize(
    ("report", "output", "told"),
    [
        ("out", "out", "in the way"),
        ("r", "r/report.html", "in the way"),
        ("taken", "s.onnx", "is a file"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_first(tmp_path, few, report, output, told):
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "r").mkdir()
    done = run(
        "compress", MODEL, "-o", tmp_path / output, "--images", few, "--bits", 4, "--report",
        tmp_path / report, code=2,
    )  # fmt: skip
    assert told in done.stderr
    assert (tmp_path / "taken").read_text() == "mine"
    assert not (tmp_path / output).exists()


@pytest.mark.parametrize(
    "methods",
    ["nearest,aciq", pytest.param("prune-then-quantize,joint", marks=pytest.mark.slow)],
)
def test_a_sweep_looks_into_the_point_it_chose(tmp_path, slim, few, methods):
    arguments = ["sweep", slim, "--images", few, "-o", tmp_path / "s", "--targets", "3"]
    arguments += ["--methods", methods, "--report", tmp_path / "r", "--json"]
    document = json.loads(run(*arguments).stdout)
    plain = json.loads((tmp_path / "s" / "sweep.json").read_text())
    report = document.pop("report")
    assert document == plain, "the sweep's own file stays as it is"
    index = report["choice"]["index"]
    chosen, made = plain["points"][index], report["choice"]["result"]["evaluation"]["models"][1]
    for key in ("macs", "esn_prime", "parameters"):
        assert chosen[key] == made[key] == report["after"].get(key, made[key])
    assert chosen["top1"] == made["agreement"]["top1"]
    assert report["notes"] == []
    words = [shlex.split(word)[0] for word in report["point_commands"][index]]
    small = tmp_path / "small.onnx"
    words[words.index("-o") + 1] = str(small)
    run(*words[1:], "--quiet")
    told = json.loads(run("inspect", small, "--json").stdout)
    assert told["totals"]["esn_prime"] == chosen["esn_prime"], "the command makes the point"
    page = Page((tmp_path / "r" / "report.html").read_text())
    assert page.problems == []


def test_a_sweep_hands_options_of_compress_to_its_points_and_their_commands(tmp_path, slim, few):
    stored = onnx_esn.quantize(slim, bits=8, format="qdq").model
    onnx.save(stored, tmp_path / "stored.onnx")
    given = ["sweep", tmp_path / "stored.onnx", "--images", few, "--targets", 2]
    given += ["--methods", "nearest", "--input-shape", "1,1,28,28", "--threads", 1]
    assert "--requantize" in run(*given, "-o", tmp_path / "refused", code=2).stderr
    given += ["--requantize"]
    wrong = run(*given, "--only", "nope", "-o", tmp_path / "refused", code=2)
    assert wrong.stderr.count("\n") == 1
    assert not (tmp_path / "refused").exists()
    grid = ["sweep", slim, "--images", few, "--bits", "1,3", "--quantizer", "mid-tread"]
    assert "1" in run(*grid, "-o", tmp_path / "refused", code=2).stderr
    given += ["--exclude", "fc*", "--exclude", "conv/*"]
    done = run(*given, "-o", tmp_path / "swept", "--report", tmp_path / "page", "--json")
    (point,) = json.loads(done.stdout)["points"]
    (command,) = json.loads(done.stdout)["report"]["point_commands"]
    words = [shlex.split(word)[0] for word in command][1:]
    made = tmp_path / "made.onnx"
    words[words.index("-o") + 1] = str(made)
    run(*words)
    found = onnx_esn.inspect(made)
    assert found.totals.esn_prime == point["esn_prime"]
    kept = {x.name for x in found.layers if x.storage_bits == 8}
    assert kept == {"fc/Gemm", "conv/Conv"}


def test_names_of_a_hostile_model_stay_text(tmp_path):
    """A whole run, not only the page."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((8, 3, 3, 3), (4, 8, 1, 1))]
    nodes = [
        helper.make_node("Conv", ["x", WEIGHT], ["a\u202e"], name=f"one{HOSTILE}", pads=[1] * 4),
        helper.make_node("Relu", ["a\u202e"], ["b"], name='"quoted"'),
        helper.make_node("Conv", ["b", "v"], ["y"], name="two\x00&amp;"),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 8, 8])],
        [numpy_helper.from_array(w, n) for w, n in zip(weights, (WEIGHT, "v"), strict=True)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "<b>'it'.onnx"
    onnx.save(model, path)
    np.save(tmp_path / "x.npy", rng.normal(size=(16, 3, 8, 8)).astype(np.float32))
    run(
        "compress", path, "-o", tmp_path / "s.onnx", "--images", tmp_path / "x.npy", "--bits", 3,
        "--ratio", 0.25, "--method", "nearest", "--report", tmp_path / "r",
    )  # fmt: skip
    page = Page((tmp_path / "r" / "report.html").read_text())
    assert page.problems == []
    assert page.tags()["script"] == 2
    assert page.tags()["b"] < 60
    assert f"one{HOSTILE}" in page.text
    assert "two\\x00&amp;" in page.text
    assert "<b>'it'.onnx" in page.text


def test_a_model_in_another_format_has_its_figures(tmp_path, few):
    run(
        "compress", MODEL, "-o", tmp_path / "s.onnx", "--images", few, "--bits", 4, "--method",
        "nearest", "--format", "qonnx", "--report", tmp_path / "r",
    )  # fmt: skip
    report = json.loads((tmp_path / "r" / "report.json").read_text())["report"]
    assert all(layer["output_snr_db"] is not None for layer in report["layers"])
    assert all(set(layer["filters"]) == {"4"} for layer in report["layers"])
    assert report["notes"] == []


def test_few_images_are_no_obstacle(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 1, 28, 28), np.float32))
    run(
        "compress", MODEL, "-o", tmp_path / "s.onnx", "--images", tmp_path / "x.npy", "--bits", 4,
        "--method", "nearest", "--report", tmp_path / "r",
    )  # fmt: skip
    page = Page((tmp_path / "r" / "report.html").read_text())
    assert "not measured" in page.text
    assert "too few images" in page.text


ODD = ["dynamic_height_and_width", "grouped_in_two", "depthwise", "transposed_conv_in_groups"]


@pytest.mark.parametrize(
    "name", [n if n in ODD else pytest.param(n, marks=pytest.mark.slow) for n in sorted(MODELS)]
)
def test_every_model_has_a_page(name):
    """Pruned and quantized without images; each layer says what became of its filters."""
    built = MODELS[name].build()
    model, stages = built[0] if isinstance(built, tuple) else built, []
    current = model
    for verb, change in (("prune", {"ratio": 0.3}), ("quantize", {"bits": 3})):
        try:
            result = getattr(onnx_esn, verb)(current, **change)
        except OnnxEsnError:
            continue
        stages.append((verb, result))
        current = result.model
    done = CompressionResult(current, tuple(stages), None)
    document = compression_document(done, compression_report(model, done))
    page = Page(report_page(document))
    assert page.problems == []
    assert document["report"]["notes"][-1].startswith("outputs of layers were not compared")
    for layer in document["report"]["layers"]:
        assert layer["filters"].count("x") == layer["before"]["filters"] - layer["after"]["filters"]
