"""`onnx-esn compare` end to end: what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.evaluation.nets import classifier, noisy
from tests.test_cli import fails, run


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A model, a noisy copy, and tensors for both."""
    paths = (tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "x.npy")
    onnx.save(classifier(), paths[0])
    onnx.save(noisy(classifier(), "b.weight", 0.5), paths[1])
    np.save(paths[2], np.random.default_rng(0).normal(size=(9, 3, 6, 6)).astype(np.float32))
    return paths


def test_help_has_an_example():
    assert "onnx-esn compare model.onnx small.onnx" in run("compare", "--help").output


def test_equal_models(files):
    a, _, images = files
    (line,) = run("compare", a, a).stdout.splitlines()
    assert line.endswith("are the same: no node, tensor or setting differs")
    (line,) = run("compare", a, a, "--images", images, "--max-divergence", 0).stdout.splitlines()
    assert line.endswith("9 samples of x.npy")


def test_the_gate(files):
    a, b, images = files
    document = json.loads(run("compare", a, b, "--images", images, "--json").stdout)
    limit = document["outputs"]["divergence"]
    assert limit > 0
    run("compare", a, b, "--images", images, "--max-divergence", limit)
    error = fails("compare", a, b, "--images", images, "--max-divergence", limit / 2, code=1)
    assert "the outputs of b.onnx diverge from those of a.onnx" in error
    done = run("compare", a, b, "--images", images, "--max-divergence", 0, "--json", code=1)
    assert json.loads(done.stdout) == document


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--max-divergence", "1"], "give some"),
        (["--max-divergence", "nan"], "makes no sense"),
        (["--max-divergence", "-1"], "makes no sense"),
        (["--latency"], "need images"),
        (["--recipe", "r.toml"], "need images"),
    ],
)
def test_wrong_usage(files, args, words):
    assert words in fails("compare", files[0], files[1], *args)


def test_files_that_cannot_be_read(files, tmp_path):
    assert "no such file" in fails("compare", files[0], tmp_path / "c.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(files[0].read_bytes()[:-50])
    assert "truncated" in fails("compare", broken, files[0])
    assert "is a folder" in fails("compare", files[0], tmp_path)
    assert "take the same inputs" in fails(
        "compare", files[0], _other(tmp_path), "--images", files[2]
    )
    text = run("compare", files[0], _other(tmp_path)).stdout
    assert "input 0" in text


def _other(folder):
    path = folder / "other.onnx"
    onnx.save(classifier(size=8, seed=3), path)
    return path


def test_external_data_counts(files, tmp_path):
    a = files[0]
    big = tmp_path / "big.onnx"
    onnx.save(onnx.load(a), big, save_as_external_data=True, location="big.data", size_threshold=0)
    document = json.loads(run("compare", a, big, "--images", files[2], "--json").stdout)
    assert document["same"] is True
    data = (tmp_path / "big.data").stat().st_size
    assert document["after"]["file_bytes"] == big.stat().st_size + data
    assert document["outputs"]["divergence"] == 0
