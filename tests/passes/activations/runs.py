"""What the tests of quantized activations share: running models and looking into them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort

from onnx_esn.graph.constants import Constants
from onnx_esn.passes.quantizing.quantization import Quantize
from tests.net import Net
from tests.passes.tiny import weights

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
FLOAT = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


def session(model, level="ORT_ENABLE_ALL", path=None):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    if path is not None:
        options.optimized_model_filepath = str(path)
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(model, feeds, level="ORT_ENABLE_ALL"):
    if not isinstance(feeds, dict):
        feeds = {model.graph.input[0].name: feeds}
    return session(model, level).run(None, feeds)


def kernels(model, tmp_path):
    """Operators that onnxruntime really runs, and how often."""
    path = tmp_path / "optimized.onnx"
    session(model, path=path)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def snr(reference, outputs):
    """Of all outputs together, in dB."""
    signal = sum(np.square(a, dtype=np.float64).sum() for a in reference)
    error = sum(
        np.square(a - b, dtype=np.float64).sum() for a, b in zip(reference, outputs, strict=True)
    )
    return np.inf if error == 0 else 10 * np.log10(signal / error)


def fake(model, bits=7, **options):
    return Quantize(bits=bits, **options)(model).model


def images(n=16, size=6, seed=5):
    return weights(n, 3, size, size, seed=seed)


def read_back(model, name):
    """What a layer reads as its weight, and the stored integers."""
    node = next(n for n in model.graph.node if n.name == name)
    constants = Constants(model)
    source = constants.producer[node.input[1]].input[0]
    return constants.value(node.input[1]), constants.value(source)


def residual():
    """The sum is read by the next layer and by the next sum; the last one leaves the model."""
    net = Net(3, 6, 6)
    y = net.conv_bn_relu("x", 3, 8)
    z = net.bn(net.conv(net.conv_bn_relu(y, 8, 8), 8, 8, bias=False), 8)
    y = net.relu(net.op("Add", y, z))
    z = net.conv(y, 8, 8, name="last")
    return net.model(net.op("Add", y, z, name="sum"))
