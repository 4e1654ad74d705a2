"""`--activations` on the command line: integers between the layers, refusals, figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_esn import compress, evaluate, inspect, quantize
from onnx_esn.errors import OptionError
from tests.test_cli import IMAGES, MODEL, fails, run


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, slim: str, few: str) -> tuple[Path, dict]:
    path = tmp_path_factory.mktemp("integers") / "small.onnx"
    result = run("quantize", slim, "-o", path, "--bits", 4, "--images", few,
                 "--activations", "uint8", "--json")  # fmt: skip
    return path, json.loads(result.stdout)


def test_layers_run_on_integers_and_keep_their_bits(written: tuple[Path, dict]) -> None:
    path, document = written
    (stage,) = document["stages"]
    integers = stage["details"]["integers"]
    assert integers["activations"] == "uint8"
    assert integers["calibrator"] == "percentile"
    assert len(integers["integer_layers"]) == 16
    assert integers["float_layers"] == []
    assert integers["bytes_after"] == path.stat().st_size
    assert integers["bytes_after"] < integers["bytes_before"]
    layers = inspect(str(path)).layers
    assert {max(x.filter_bits) for x in layers} == {4}
    operators = [n.op_type for n in onnx.load(path).graph.node]
    assert operators.count("QuantizeLinear") >= 16
    assert "BatchNormalization" not in operators


def test_outputs_stay_close_to_those_of_float_activations(
    written: tuple[Path, dict],
    slim: str,
    few: str,
) -> None:
    fake = quantize(slim, bits=4, images=few).model
    found = evaluate([fake, str(written[0])], IMAGES, latency=False).models[1]
    assert found.agreement is not None
    assert found.agreement.snr_db > 25


def test_compress_says_what_became_of_the_activations(tmp_path: Path, slim: str, few: str) -> None:
    result = run("compress", slim, "-o", tmp_path / "s.onnx", "--bits", 3, "--images", few,
                 "--activations", "uint8", "--calibrator", "minmax")  # fmt: skip
    assert "quantize activations: activations uint8 (minmax): 16 of 16 layers" in result.output
    model = onnx.load(tmp_path / "s.onnx")
    assert any(p.key == "onnx_esn.inspection" for p in model.metadata_props)


@pytest.mark.slow
def test_a_budget_gives_no_bits_that_int8_cannot_hold() -> None:
    options = {"target_cost": "15%", "images": IMAGES, "effort": "fast"}
    free = inspect(quantize(MODEL, **options).model).layers
    assert max(max(x.filter_bits) for x in free) == 8
    done = quantize(MODEL, **options, activations="uint8")
    assert done.details["integers"]["rounded_filters"] == {}
    assert max(max(x.filter_bits) for x in inspect(done.model).layers) == 7


def test_excluded_layers_stay_float(slim: str, few: str) -> None:
    model = onnx.load(slim)
    last = inspect(model).layers[-1].name
    done = compress(model, few, bits=4, activations="uint8", exclude=[last], latency=False)
    details = dict(done.stages)["quantize activations"].details["integers"]
    assert details["float_layers"] == [last]
    assert len(details["integer_layers"]) == 15


def test_what_does_not_go_together(tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    given = ("quantize", MODEL, "-o", out, "--bits", 4)
    assert "--images" in fails(*given, "--activations", "uint8")
    assert "qdq" in fails(*given, "--activations", "uint8", "--images", IMAGES, "--format", "qonnx")
    assert "--opset" in fails(*given, "--activations", "uint8", "--images", IMAGES, "--opset", 21)
    assert "--activations" in fails(*given, "--calibrator", "minmax")
    assert not out.exists()
    with pytest.raises(OptionError, match="there are: none, "):
        quantize(MODEL, bits=4, images=IMAGES, activations="uint9")


def test_a_plan_knows_the_ranges_of_its_own_kind(tmp_path: Path, slim: str, few: str) -> None:
    given = ("quantize", slim, "--bits", 4, "--images", few, "--activations", "uint4")
    run(*given, "-o", tmp_path / "a.onnx", "--plan-out", tmp_path / "p.json")
    again = ("quantize", slim, "-o", tmp_path / "b.onnx", "--plan", tmp_path / "p.json")
    run(*again, "--activations", "uint4")
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()
    assert "ranges are for uint4" in fails(*again, "--activations", "uint2")


def test_same_bytes_again(written: tuple[Path, dict], slim: str, few: str) -> None:
    again = quantize(slim, bits=4, images=few, activations="uint8").model
    stored = onnx.load(written[0])
    assert again.graph.SerializeToString(deterministic=True) == stored.graph.SerializeToString(
        deterministic=True
    )
    values = [onnx.numpy_helper.to_array(t) for t in again.graph.initializer]
    assert sum(v.dtype == np.int8 and v.ndim > 1 for v in values) == 16
