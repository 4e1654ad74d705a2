"""The `qonnx` package reads what we write, runs it to the same outputs, and counts its cost."""

from __future__ import annotations

import functools
from collections import defaultdict

import numpy as np
import onnx
import pytest

import onnx_esn
from onnx_esn.formats.qonnx import write
from tests.net import Net, feeds_for
from tests.oracles.equivalence import relative_difference, run

pytest.importorskip("qonnx", reason="the qonnx package is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the package


@pytest.fixture(autouse=True)
def _ir_version(monkeypatch):
    """The package writes models of the newest IR version, which may be too new for onnxruntime."""
    make = functools.partial(onnx.helper.make_model, ir_version=10)
    monkeypatch.setattr(onnx.helper, "make_model", make)


def net(norm=True):
    """Conv, depthwise and grouped Conv, a residual, Gemm: what both sides count."""
    n = Net(3, 8, 8, batch=1, ir=10)
    y = n.conv_bn_relu("x", 3, 8) if norm else n.relu(n.conv("x", 3, 8))
    y = n.relu(n.conv(y, 8, 8, group=8))
    z = n.relu(n.conv(y, 8, 8, group=2))
    y = n.op("Add", y, z)
    y = n.op("AveragePool", y, kernel_shape=[8, 8])
    return n.model(n.gemm(n.op("Flatten", y), 8, 5))


def quantized(**options):
    return onnx_esn.quantize(net(options.pop("norm", True)), **options).model


def cleaned(model):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.cleanup import cleanup_model

    return cleanup_model(ModelWrapper(model.SerializeToString()))


FAKES = {
    "mid-rise": {"bits": 4},
    "folded": {"bits": 4, "norm": False},
    "8 bits": {"bits": 8},
    "1 bit": {"bits": 1},
    "mid-tread": {"bits": 4, "quantizer": "mid-tread"},
    "mixed": {"target_cost": "10%"},
}


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("zero_points", [True, False])
@pytest.mark.parametrize("name", FAKES)
def test_runs_to_the_same_outputs(name, zero_points, clean):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes

    fake = quantized(**FAKES[name])
    written = write(fake, zero_points=zero_points).model
    model = cleaned(written) if clean else ModelWrapper(written.SerializeToString())
    model = model.transform(InferShapes()).transform(InferDataTypes(allow_scaledint_dtypes=True))
    (feed,) = feeds_for(fake, {"x": (1, 3, 8, 8)}).values()
    result = execute_onnx(model, {model.graph.input[0].name: feed})
    assert relative_difference(run(fake, {"x": feed}), list(result.values())) < 1e-6
    assert len(model.get_nodes_by_op_type("Quant")) == 4


def test_makes_the_weights_to_the_last_bit():
    """Every intermediate tensor of the package is at hand: the outputs of the Quant nodes."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    written = write(quantized(target_cost="12%")).model
    model = ModelWrapper(written.SerializeToString()).transform(InferShapes())
    feeds = feeds_for(written, {"x": (1, 3, 8, 8)})
    context = execute_onnx(model, feeds, return_full_exec_context=True)
    for quant in model.get_nodes_by_op_type("Quant"):
        np.testing.assert_array_equal(context[quant.output[0]], context[quant.input[0]])


def cost(model, *, preprocess):
    from qonnx.util.inference_cost import inference_cost

    found = inference_cost(model, preprocess=preprocess, discount_sparsity=False)["total_cost"]
    by_width = defaultdict(float)
    for key, macs in found.items():
        if key.startswith("op_mac_FLOAT32_"):
            by_width[key.removeprefix("op_mac_FLOAT32_")] += macs
    return dict(by_width), found["total_macs"], found["total_bops"] / 32


@pytest.mark.parametrize("name", ["mid-rise", "folded", "8 bits", "1 bit", "mid-tread"])
def test_counts_the_same_cost_at_uniform_bits(name):
    """Activations are float32 on its side: MAC·bit is its bit operations, by 32."""
    fake = quantized(**FAKES[name])
    totals = onnx_esn.inspect(fake).totals
    bits = FAKES[name]["bits"]
    model = cleaned(write(fake).model)
    counted = cost(model, preprocess=False)
    assert counted == ({f"SCALEDINT<{bits}>": totals.macs}, totals.macs, totals.esn_prime)


@pytest.mark.parametrize("name", FAKES)
def test_counts_the_widest_filter_of_a_layer_for_all(name):
    fake = quantized(**FAKES[name])
    layers = onnx_esn.inspect(fake).layers
    _, macs, mac_bits = cost(cleaned(write(fake).model), preprocess=False)
    assert macs == sum(x.macs for x in layers)
    assert mac_bits == sum(x.macs * max(x.filter_bits) for x in layers)
    total = sum(x.esn_prime for x in layers)
    assert mac_bits > total if name == "mixed" else mac_bits == total


@pytest.mark.parametrize(
    ("name", "zero_points", "width"),
    [
        ("mid-tread", True, "SCALEDINT<4>"),
        ("1 bit", True, "SCALEDINT<1>"),
        ("mid-rise", False, "SCALEDINT<5>"),
        ("mid-rise", True, "FLOAT32"),
    ],
)
def test_its_own_inference_of_types_wants_zero_points_of_zero(name, zero_points, width):
    model = cleaned(write(quantized(**FAKES[name]), zero_points=zero_points).model)
    by_width, _, _ = cost(model, preprocess=True)
    assert list(by_width) == [width]


def test_reads_the_bits_of_the_filters_in_the_metadata():
    model = cleaned(write(quantized(target_cost="10%")).model)
    told = [p.key for n in model.get_nodes_by_op_type("Quant") for p in n.metadata_props]
    assert "onnx_esn.quant_bits" in told
