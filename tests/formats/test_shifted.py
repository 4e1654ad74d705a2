"""Weights on grids with offsets in every format: the same values, the same bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_esn import convert, quantize
from onnx_esn.calibration import Session
from onnx_esn.formats import qonnx
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.number_formats import round_to
from onnx_esn.graph.weights import read_weight
from onnx_esn.passes.export import runnable
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.passes.layers.costs import measured_view
from onnx_esn.passes.quantizing.aciq import Aciq
from tests.passes.tiny import graph, two_convs, weights


def read(model):
    constants = Constants(model)
    return [read_weight(x, constants) for x in measured_view(model).layers]


def models():
    yield two_convs(opset=21, ir=10)
    yield two_convs(opset=13)
    matmul, W = [("MatMul", ["x", "W"], ["y"], {})], weights(12, 9, dtype=np.float64)
    yield graph(matmul, {"x": ["N", 12]}, {"W": W}, elem=onnx.TensorProto.DOUBLE)
    nodes = [("ConvTranspose", ["x", "W"], ["y"], {"group": 2})]
    yield graph(nodes, {"x": ["N", 4, 5, 5]}, {"W": weights(4, 3, 3, 3)})
    yield graph(matmul, {"x": ["N", 12]}, {"W": W.astype(np.float32)})


@pytest.mark.parametrize("bits", [1, 3, 4, 8])
@pytest.mark.parametrize("model", list(models()))
def test_qdq_gives_the_same_weights_to_the_last_bit(model, bits):
    fake = Aciq(bits=bits)(model).model
    stored = convert(fake, format="qdq")
    layers = stored.details["format"]["layers"]
    assert {x["reason"] for x in layers} == {""}
    assert all(x["form"].endswith("+Add") for x in layers)
    for before, after in zip(read(fake), read(stored.model), strict=True):
        np.testing.assert_array_equal(before.W, after.W)
        assert after.filter_bits.tolist() == before.filter_bits.tolist()
        assert after.type_name.startswith("int")
    x = {n: np.random.default_rng(0).normal(size=s) for n, s in inspect(model).input_shapes.items()}
    feeds = {
        i.name: x[i.name].astype("f8" if i.type.tensor_type.elem_type == 11 else "f4")
        for i in fake.graph.input
    }
    for name, expected in Session(fake).run(feeds).items():
        found = Session(stored.model).run(feeds)[name]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_qonnx_has_zero_points(bits):
    fake = Aciq(bits=bits)(two_convs()).model
    stored = convert(fake, format="qonnx").model
    assert sum(n.op_type == "Quant" for n in stored.graph.node) == 3
    for before, after in zip(read(fake), read(stored), strict=True):
        np.testing.assert_array_equal(before.W, after.W)
        assert after.filter_bits.tolist() == before.filter_bits.tolist()
    again = read(runnable(stored))
    np.testing.assert_array_equal(again[0].W, read(fake)[0].W)
    without = qonnx.write(fake, zero_points=False)
    assert {x.reason for x in without.layers} == {"its grid is shifted, which takes zero points"}


def test_quantize_writes_the_format_asked_for():
    direct = quantize(two_convs(), bits=4, method="aciq", format="qdq")
    assert inspect(direct.model).totals.esn_prime == direct.details["cost_after"]


def test_a_number_rounded_to_bfloat16_stays_a_number():
    """`convert` of a bfloat16 weight whose step is not exact rounds single numbers."""
    assert round_to(0.3, onnx.TensorProto.BFLOAT16).shape == ()
    assert float(round_to(0.3, onnx.TensorProto.BFLOAT16)) == 0.30078125
