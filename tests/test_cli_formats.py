"""Formats on the command line: what is written, what is said, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from onnx_esn import compress, inspect
from onnx_esn.graph import metadata
from tests.formats.running import run as run_model
from tests.formats.running import worst_difference
from tests.net import feeds_for
from tests.test_cli import IMAGES, MODEL, fails, run


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fake") / "fake.onnx"
    run("quantize", MODEL, "-o", path, "--bits", 4)
    return path


@pytest.fixture(scope="module")
def qdq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qdq") / "qdq.onnx"
    run("quantize", MODEL, "-o", path, "--bits", 4, "--format", "qdq")
    return path


def outputs(path: Path):
    model = onnx.load(path)
    return run_model(model, feeds_for(model, {model.graph.input[0].name: (2, 1, 28, 28)}))


def test_quantize_says_what_it_wrote(tmp_path):
    path = tmp_path / "q.onnx"
    lines = run("quantize", MODEL, "-o", path, "--bits", 4, "--format", "qdq").output.splitlines()
    assert lines[1].startswith("format qdq: 717 kB → 116 kB; 16 layers: ")
    assert "int4+Add" in lines[1]
    assert lines[2] == "operator set raised from 17 to 21 for int4"


def test_the_document_has_the_same_figures(tmp_path):
    path = tmp_path / "q.onnx"
    text = run("quantize", MODEL, "-o", path, "--bits", 4, "--format", "qdq", "--json").output
    (stage,) = json.loads(text)["stages"]
    written = stage["details"]["format"]
    assert written["name"] == "qdq"
    assert written["bytes_before"] == Path(MODEL).stat().st_size
    assert written["bytes_after"] == path.stat().st_size
    assert (written["opset_before"], written["opset_after"], written["ir_version"]) == (17, 21, 10)
    assert sum(written["forms"].values()) == len(written["layers"]) == 16
    assert written["layers"][0]["layer"] == inspect(MODEL, groups=False).layers[0].name


def test_convert_does_what_quantize_does(fake, qdq, tmp_path):
    path = tmp_path / "c.onnx"
    run("convert", fake, "-o", path, "--format", "qdq")
    assert path.read_bytes() == qdq.read_bytes()


@pytest.mark.parametrize("to", ["fake", "qonnx"])
def test_convert_goes_both_ways(to, fake, qdq, tmp_path):
    other, back = tmp_path / "other.onnx", tmp_path / "back.onnx"
    run("convert", qdq, "-o", other, "--format", to)
    a, b = inspect(fake, groups=False), inspect(other, groups=False)
    assert [x.filter_bits for x in a.layers] == [x.filter_bits for x in b.layers]
    run("convert", other, "-o", back, "--format", "fake")
    assert worst_difference(outputs(fake), outputs(back)) <= 1e-5


def test_a_kept_operator_set_stays(fake, tmp_path):
    path = tmp_path / "k.onnx"
    output = run("convert", fake, "-o", path, "--format", "qdq", "--keep-opset").output
    assert onnx.load(path).opset_import[0].version == 17
    assert "raised" not in output
    assert "int8" in output


def test_a_plan_replays_to_the_same_bytes(qdq, tmp_path):
    plan, first, again = (tmp_path / n for n in ("p.json", "a.onnx", "b.onnx"))
    run("quantize", MODEL, "-o", first, "--bits", 4, "--format", "qdq", "--plan-out", plan)
    run("quantize", MODEL, "-o", again, "--plan", plan, "--format", "qdq")
    assert first.read_bytes() == qdq.read_bytes() == again.read_bytes()


def test_a_renewed_annotation_has_the_figures_of_the_file(fake, tmp_path):
    noted, path = tmp_path / "noted.onnx", tmp_path / "q.onnx"
    run("annotate", fake, "-o", noted)
    run("convert", noted, "-o", path, "--format", "qdq")
    document = json.loads(metadata.read(onnx.load(path))["inspection"])
    assert {x["storage"] for x in document["layers"]} == {"int4", "int8"}
    expected = inspect(path).to_document()
    assert document["layers"] == expected["layers"]
    assert document["totals"] == expected["totals"]
    conv = next(n for n in onnx.load(path).graph.node if n.op_type == "Conv")
    assert metadata.read(conv)["bits"] == "4"


def test_compress_annotates_and_compares_what_it_writes():
    result = compress(
        MODEL, IMAGES, bits=4, method="nearest", format="qdq", latency=False, batch_size=128
    )
    assert [name for name, _ in result.stages][-2:] == ["export", "annotate"]
    document = json.loads(metadata.read(result.model)["inspection"])
    assert {x["storage"] for x in document["layers"]} <= {"int4", "int8"}
    assert result.evaluation is not None


def test_compress_says_what_it_wrote(tmp_path):
    path = tmp_path / "c.onnx"
    output = run(
        *("compress", MODEL, "-o", path, "--images", IMAGES, "--bits", 4, "--method", "nearest"),
        *("--format", "qonnx"),
    ).output
    assert "export: format qonnx: " in output
    assert any(n.op_type == "Quant" for n in onnx.load(path).graph.node)


def test_external_data_where_asked_for(fake, tmp_path):
    path = tmp_path / "e.onnx"
    run("convert", fake, "-o", path, "--format", "qdq", "--external-data")
    (data,) = tmp_path.glob("e.onnx.*.data")
    assert data.stat().st_size > 50_000
    again = tmp_path / "f.onnx"
    run("convert", path, "-o", again, "--format", "fake")
    assert len(list(tmp_path.glob("f.onnx.*.data"))) == 1
    assert worst_difference(outputs(fake), outputs(again)) <= 1e-5


def test_what_lies_on_no_grid_is_refused(tmp_path):
    path = tmp_path / "x.onnx"
    error = fails("convert", MODEL, "-o", path, "--format", "qdq")
    assert "lies on a grid" in error
    assert "onnx-esn quantize" in error
    assert not path.exists()


def test_what_is_stored_as_integers_already_is_refused(qdq, tmp_path):
    assert "already" in fails("convert", qdq, "-o", tmp_path / "x.onnx", "--format", "qdq")


def test_options_that_say_nothing_to_a_format_are_refused(fake, tmp_path):
    for option in (("--keep-opset",), ("--opset", 21)):
        error = fails("convert", fake, "-o", tmp_path / "x.onnx", "--format", "qonnx", *option)
        assert "operator set" in error


def test_an_operator_set_below_the_models_is_refused(fake, tmp_path):
    command = ("convert", fake, "-o", tmp_path / "x.onnx", "--format", "qdq", "--opset", 13)
    assert "has operator set 17, not 13" in fails(*command)
