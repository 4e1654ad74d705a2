"""The scripts of examples/ run as they are, where the framework that they start from is present."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnx_esn

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "fashion_resnet.onnx"
IMAGES = ROOT / "calibration" / "fashion-mnist"


def needs(*packages):
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(packages)}")


def script(name, *arguments, folder):
    """What a script prints; it runs elsewhere, as a user's would."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def runs(path, x):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def check_compressed(path, x, printed):
    """Stored as integers, within the budget, and it runs on any batch."""
    model = onnx.load(path)
    assert "DequantizeLinear" in {node.op_type for node in model.graph.node}
    found = onnx_esn.inspect(path, input_shape=(1, *x.shape[1:]))
    assert found.totals.quantized_layers == found.totals.layers == 4
    assert f"to {found.totals.esn_prime:,.0f} MAC" in printed
    float_cost = 32 * (27 * 16 * 32**2 + 9 * 16 * 32 * 16**2 + 9 * 32 * 32 * 8**2 + 320)
    assert found.totals.esn_prime <= 0.1 * float_cost
    assert runs(path, x).shape == (3, 10)


def test_between_the_steps_of_onnxruntime(tmp_path):
    printed = script(
        "static_quantization.py", str(SAMPLE), str(IMAGES), "-o", "q.onnx", folder=tmp_path
    )
    assert "top-1 agreement 9" in printed
    before, after = (onnx_esn.inspect(p).totals for p in (SAMPLE, tmp_path / "q.onnx"))
    assert after.macs < 0.7 * before.macs
    assert (after.quantized_layers, after.layers) == (before.layers, before.layers)
    assert after.esn_prime <= 8 * after.macs
    kinds = {node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param([], marks=needs("torch", "onnxscript"), id="dynamo"),
        pytest.param(["--torchscript"], marks=needs("torch"), id="torchscript"),
    ],
)
def test_after_torch_export(flags, tmp_path):
    printed = script("torch_export.py", "-o", "small.onnx", *flags, folder=tmp_path)
    x = np.zeros((3, 3, 32, 32), np.float32)
    check_compressed(tmp_path / "small.onnx", x, printed)


@needs("tensorflow", "tf2onnx")
def test_after_tf2onnx(tmp_path):
    printed = script("tensorflow_export.py", "-o", "small.onnx", folder=tmp_path)
    x = np.zeros((3, 32, 32, 3), np.float32)
    check_compressed(tmp_path / "small.onnx", x, printed)
