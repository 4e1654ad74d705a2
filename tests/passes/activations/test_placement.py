"""Quantized activations: where integers flow, and that integer kernels run."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_esn.errors import OptionError
from onnx_esn.passes.activations.quantizing import quantize_activations
from onnx_esn.passes.inspecting.inspection import inspect
from tests.net import Net
from tests.passes.activations.runs import FLOAT, fake, images, kernels, residual, run, snr
from tests.passes.tiny import graph, two_convs, weights


@pytest.mark.parametrize("norm", [True, False])
def test_only_integer_kernels_run(tmp_path, norm):
    result = quantize_activations(fake(two_convs(norm=norm)), images(), kind="uint8")
    ran = kernels(result.model, tmp_path)
    assert ran["QLinearConv"] == 2
    assert ran["QGemm"] == 1
    assert ran["QLinearGlobalAveragePool"] == 1
    assert ran["QuantizeLinear"] == 1
    assert not ran["DequantizeLinear"]
    assert not FLOAT & set(ran)
    assert result.details["integer_layers"] == ["Conv_0", "Conv_3", "Gemm_6"]
    assert result.details["float_layers"] == []


def squeeze_excite():
    net = Net(3, 6, 6)
    y = net.conv_bn_relu("x", 3, 8)
    z = net.relu(net.conv(net.op("GlobalAveragePool", y), 8, 4, 1))
    y = net.op("Mul", y, net.op("Sigmoid", net.conv(z, 4, 8, 1)))
    return net.model(net.head(y, 8))


def branches():
    net = Net(3, 6, 6)
    y = net.op("MaxPool", net.conv_bn_relu("x", 3, 8), kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Concat", net.conv_bn_relu(y, 8, 4), net.conv_bn_relu(y, 8, 4, 1), axis=1)
    pooled = net.op("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4)
    return net.model(net.head(net.conv_bn_relu(pooled, 8, 8), 8))


def relu6():
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 8)
    low, high = net.store(np.array(0.0)), net.store(np.array(0.5))
    y = net.op("Clip", y, low, high)
    y = net.op("Clip", net.conv(y, 8, 8, group=8), low, high)
    return net.model(net.head(y, 8))


@pytest.mark.parametrize(
    ("build", "ran"),
    [
        (residual, {"QLinearConv": 4, "QLinearAdd": 1, "Add": 1}),
        (squeeze_excite, {"QLinearConv": 3, "QLinearSigmoid": 1, "QLinearMul": 1, "QGemm": 1}),
        (
            branches,
            {"QLinearConv": 4, "QLinearConcat": 1, "QLinearAveragePool": 1, "NhwcMaxPool": 1},
        ),
        (relu6, {"QLinearConv": 2, "QGemm": 1, "Clip": 0, "DequantizeLinear": 0}),
    ],
)
def test_the_kernels_of_common_blocks(tmp_path, build, ran):
    model = fake(build())
    result = quantize_activations(model, images(64), kind="uint8")
    found = kernels(result.model, tmp_path)
    assert {op: found[op] for op in ran} == ran
    assert not FLOAT & set(found)
    assert snr(run(model, images()), run(result.model, images())) > 30


def test_a_sum_that_leaves_the_model_is_formed_in_float():
    result = quantize_activations(fake(residual()), images(), kind="uint8")
    assert "sum_out" not in result.details["ranges"]


def test_zero_padding_becomes_part_of_the_conv(tmp_path):
    net = Net(3, 6, 6)
    y = net.op("Pad", "x", net.ints(0, 0, 1, 0, 0, 0, 1, 2), net.store(np.array(0.0)))
    y = net.relu(net.conv(y, 3, 8, pads=[0, 1, 0, 1]))
    y = net.op("Pad", y, net.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    model = fake(net.model(net.head(net.conv(y, 8, 8, pads=[0] * 4), 8)))
    result = quantize_activations(model, images(), kind="uint8")
    found = kernels(result.model, tmp_path)
    assert found["QLinearConv"] == 2
    assert found["Pad"] == 1
    assert snr(run(model, images()), run(result.model, images())) > 30


@pytest.mark.parametrize("fill", [0.5, -1.0])
def test_other_padding_stays(tmp_path, fill):
    net = Net(3, 6, 6)
    y = net.op("Pad", "x", net.ints(0, 0, 1, 1, 0, 0, 1, 1), net.store(np.array(fill)))
    model = fake(net.model(net.head(net.conv(y, 3, 8, pads=[0] * 4), 8)))
    result = quantize_activations(model, images(), kind="uint8")
    assert kernels(result.model, tmp_path)["Pad"] == 1
    assert snr(run(model, images()), run(result.model, images())) > 30


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (-0.5, 2.0), (3.0, 0.0)])
def test_a_gemm_takes_its_factors_into_the_steps(tmp_path, trans, alpha, beta):
    W = weights(4, 12) if trans else weights(12, 4)
    nodes = [
        ("Relu", ["x"], ["r"], {}),
        ("Gemm", ["r", "W", "b"], ["y"], {"transB": trans, "alpha": alpha, "beta": beta}),
    ]
    model = fake(graph(nodes, {"x": ["N", 12]}, {"W": W, "b": weights(1, 4, seed=3)}))
    x = weights(32, 12, seed=7)
    result = quantize_activations(model, x, kind="uint8")
    assert kernels(result.model, tmp_path)["QGemm"] == 1
    assert snr(run(model, x), run(result.model, x)) > 35


def test_a_product_and_its_bias_become_one_kernel(tmp_path):
    net = Net(3, 6, 6)
    y = net.op("Flatten", net.op("GlobalAveragePool", net.conv_bn_relu("x", 3, 8)))
    model = fake(net.model(net.linear(net.relu(net.linear(y, 8, 6)), 6, 4)))
    result = quantize_activations(model, images(), kind="uint8")
    found = kernels(result.model, tmp_path)
    assert found["QGemm"] == 2
    assert not FLOAT & set(found)
    assert snr(run(model, images()), run(result.model, images())) > 30


def test_layers_that_share_a_weight_keep_it_each(tmp_path):
    nodes = [
        ("Conv", ["x", "W"], ["a"], {"pads": [1] * 4}),
        ("BatchNormalization", ["a", "g", "g", "g", "v"], ["b"], {}),
        ("Relu", ["b"], ["c"], {}),
        ("Conv", ["c", "W"], ["y"], {"pads": [1] * 4}),
    ]
    tensors = {"W": weights(3, 3, 3, 3), "g": weights(3, seed=4), "v": np.ones(3, np.float32)}
    model = fake(graph(nodes, {"x": ["N", 3, 6, 6]}, tensors), 5)
    result = quantize_activations(model, images(), kind="uint8")
    assert kernels(result.model, tmp_path)["QLinearConv"] == 2
    assert snr(run(model, images()), run(result.model, images())) > 25
    assert inspect(result.model).layers[1].filter_bits == inspect(model).layers[1].filter_bits


def test_what_is_excluded_stays_as_it_is():
    model = fake(two_convs())
    result = quantize_activations(model, images(), kind="uint8", exclude=("Conv_3",))
    assert result.details["float_layers"] == ["Conv_3"]
    kept = next(n for n in result.model.graph.node if n.name == "Conv_3")
    assert "W2" in kept.input
    assert next(s.reason for s in result.skipped if s.node == "Conv_3").startswith("stays float")
    with pytest.raises(OptionError, match="matches no layer"):
        quantize_activations(model, images(), exclude=("nothing",))


def test_nothing_to_do_changes_nothing():
    result = quantize_activations(two_convs(), images(), exclude=("*",))
    assert not result.modified
    assert len(result.skipped) == 3
