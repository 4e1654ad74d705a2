"""`quantize --method qil` and `compress --learn` as they are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnx_esn import compress
from onnx_esn.calibration import input_specs, open_set
from onnx_esn.cli import cli
from onnx_esn.passes.correcting.output_divergence import output_divergences
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.passes.learning.float_layers import LearnWeights
from onnx_esn.passes.learning.options import LearnOptions
from onnx_esn.passes.pruning.prune import Prune
from tests.passes.layerwise.samples import smooth
from tests.passes.quantizing.test_compensation import network


@pytest.fixture
def files(tmp_path):
    onnx.save(network(), tmp_path / "net.onnx")
    np.save(tmp_path / "set.npy", smooth(40).astype(np.float32))
    return tmp_path


def run(*words):
    return CliRunner().invoke(cli, [str(w) for w in words])


def test_quantize_learns_and_says_what_the_images_said(files):
    out = files / "q.onnx"
    words = ("--images", files / "set.npy", "--bits", 1, "--method", "qil", "--epochs", 3)
    result = run("quantize", files / "net.onnx", "-o", out, *words, "--json")
    assert result.exit_code == 0, result.output
    (stage,) = json.loads(result.stdout)["stages"]
    learning = stage["details"]["learning"]
    assert learning["epochs"] == 3
    assert learning["held_out_images"] == 8
    assert len(learning["losses"][""]) == 4
    assert {b for x in inspect(onnx.load(out)).layers for b in x.filter_bits} == {1}
    again = files / "again.onnx"
    assert run("quantize", files / "net.onnx", "-o", again, *words).exit_code == 0
    assert again.read_bytes() == out.read_bytes()
    text = run("quantize", files / "net.onnx", "-o", again, *words).output
    assert "learned for 3 epochs; divergence on 8 held-out images" in text


def test_a_plan_carries_what_was_learned(files):
    out, plan = files / "q.onnx", files / "plan.json"
    words = ("--images", files / "set.npy", "--bits", 2, "--method", "qil", "--epochs", 2)
    first = run("quantize", files / "net.onnx", "-o", out, *words, "--plan-out", plan)
    assert first.exit_code == 0, first.output
    again = files / "again.onnx"
    assert run("quantize", files / "net.onnx", "-o", again, "--plan", plan).exit_code == 0
    assert again.read_bytes() == out.read_bytes()


def test_compress_fine_tunes_what_is_pruned_and_then_the_codes(files):
    words = ("--images", files / "set.npy", "--ratio", 0.3, "--bits", 3, "--learn", "--epochs", 2)
    result = run("compress", files / "net.onnx", "-o", files / "c.onnx", *words, "--json")
    assert result.exit_code == 0, result.output
    names = [stage["stage"] for stage in json.loads(result.stdout)["stages"]]
    assert names[:3] == ["prune", "refit", "learn"]
    assert "quantize" in names


def test_what_was_fine_tuned_is_what_is_quantized():
    """Codes that compensate towards the input model would refit the weights, and lose it."""
    model = network()
    images = open_set(smooth(48).astype(np.float32), input_specs(model))
    held = open_set(smooth(24, seed=9).astype(np.float32), input_specs(model))
    pruned = Prune(ratio=0.3)(model)
    options = LearnOptions(epochs=10, rate=0.01, batch_size=8, vary=False)
    learned = LearnWeights(images, model, options=options)(pruned.model)
    assert learned.details["accepted"]
    stages = (("prune", pruned), ("learn", learned))
    fine = compress(model, images, bits=8, pruned=stages, latency=False)
    (apart,) = output_divergences(learned.model, [fine.model], held)
    assert apart < 1e-5


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--bits", 2, "--method", "qil"), "needs images"),
        (("--bits", 2, "--epochs", 3), "epochs is for what learns"),
        (("--bits", 2, "--method", "nearest", "--epochs", 3), "epochs is for what learns"),
        (("--bits", 2, "--method", "aciq", "--epochs", 3), "epochs is for what learns"),
        (("--bits", 2, "--method", "qil", "--epochs", 0), "--epochs"),
        (("--method", "qil"), "say how to quantize"),
    ],
)
def test_quantize_refuses(files, words, what):
    images = () if what == "needs images" else ("--images", files / "set.npy")
    result = run("quantize", files / "net.onnx", "-o", files / "q.onnx", *words, *images)
    assert result.exit_code == 2
    assert what in result.output
    assert not Path(files / "q.onnx").exists()


@pytest.mark.parametrize("method", ["nearest", "aciq"])
def test_learning_starts_from_compensated_codes(files, method):
    words = ("--images", files / "set.npy", "--bits", 2, "--learn", "--method", method)
    result = run("compress", files / "net.onnx", "-o", files / "c.onnx", *words)
    assert result.exit_code == 2
    assert f"leave out method {method}" in result.output


@pytest.mark.parametrize("words", [("quantize", "--method", "qil"), ("compress", "--learn")])
def test_a_batch_of_one_learns_too(files, words):
    """As most exports have it."""
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(onnx.shape_inference.infer_shapes(model), files / "one.onnx")
    given = ("--images", files / "set.npy", "--bits", 2, "--epochs", 2, "--json")
    result = run(words[0], files / "one.onnx", "-o", files / "q.onnx", *words[1:], *given)
    assert result.exit_code == 0, result.output
    stages = {s["stage"]: s["details"] for s in json.loads(result.stdout)["stages"]}
    assert stages["quantize"]["learning"]["epochs"] == 2
