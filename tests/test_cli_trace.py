"""`onnx-esn trace` end to end."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.test_cli import fails, run


@pytest.fixture
def series(tmp_path):
    rng = np.random.default_rng(0)
    W = rng.normal(size=(8, 40)).astype(np.float32)
    for epoch in range(4):
        np.savez(tmp_path / f"epoch_{epoch:02d}.npz", conv=W, fc=W[:, :10])
        W = W + rng.normal(size=W.shape).astype(np.float32) * 0.5 ** (epoch - 1)
    (tmp_path / "accuracy.csv").write_text("epoch,accuracy\n1,0.5\n2,0.6\n3,0.7\n")
    return tmp_path


def test_tables(series):
    text = run("trace", series, "--accuracy", series / "accuracy.csv").stdout
    assert "Bits for the ESN_a of epoch 3" in text
    assert "70.0 %" in text
    assert "* coarser than about 2.5 bits" in text
    assert max(map(len, text.splitlines())) <= 100


def test_files(series, tmp_path):
    out = tmp_path / "out"
    done = run("trace", series, "--accuracy", series / "accuracy.csv", "-o", out, "--json")
    document = json.loads(done.stdout)
    assert json.loads((out / "trace.json").read_text(encoding="utf-8")) == document
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["trace.csv", "trace.json"]
        + [f"{n}.{k}" for n in ("trace", "trace_accuracy") for k in ("png", "svg")]
    )
    again = tmp_path / "again"
    run("trace", series, "--accuracy", series / "accuracy.csv", "-o", again)
    for path in out.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_a_training_that_stood_still(tmp_path):
    for epoch in range(2):
        np.savez(tmp_path / f"epoch_{epoch}.npz", conv=np.ones((2, 3), np.float32))
    text = run("trace", tmp_path).stdout
    assert "no bits: no layer that has weights other than 0 moved in epoch 1" in text
    assert "wanted" not in text


def test_wrong_usage(series):
    assert "is a file; name a folder" in fails("trace", series, "-o", series / "accuracy.csv")
    assert "epoch 9 cannot be computed" in fails("trace", series, "--epoch", 9)
