"""Tiny graphs, continued: integers. What is fused to integers stays, with the operator named."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.models import graph, stem
from tests.models_blocks import tail
from tests.net import Net

UINT8 = TensorProto.UINT8


def number(net, value, dtype=None):
    return net.store(np.array(value)) if dtype is None else net.raw(np.array(value, dtype))


def quantized(net, x, scale=0.02, zero=120):
    return net.op("QuantizeLinear", x, number(net, scale), number(net, zero, np.uint8))


def integers(net, *shape, low=-90, high=90, dtype=np.int8):
    return net.raw(net.rng.integers(low, high, shape).astype(dtype))


@graph("z", stays=["a"], locked="QLinearConv")
def integer_conv():
    """QLinearConv, as static quantization in operator form writes it."""
    net = Net(3, 6, 6)
    y = quantized(net, stem(net))
    y = net.op(
        "QLinearConv", y, number(net, 0.02), number(net, 120, np.uint8),
        integers(net, 6, 8, 3, 3), net.vector(6, low=0.002, high=0.004),
        net.raw(np.zeros(6, np.int8)), number(net, 0.05), number(net, 128, np.uint8),
        integers(net, 6, low=-900, high=900, dtype=np.int32), pads=[1] * 4,
    )  # fmt: skip
    y = net.op("DequantizeLinear", y, number(net, 0.05), number(net, 128, np.uint8))
    return tail(net, y, 6)


@graph("z", stays=["a"], locked="com.microsoft.QLinearAdd")
def integer_residual():
    net = Net(3, 6, 6)
    net.domains["com.microsoft"] = 1
    x = quantized(net, stem(net))
    scale, zero = number(net, 0.02), number(net, 120, np.uint8)
    y = net.op("QLinearAdd", x, scale, zero, x, scale, zero, number(net, 0.04), zero,
               domain="com.microsoft")  # fmt: skip
    net.declared.append(net.info(y, "N", 8, 6, 6, dtype=np.uint8))
    y = net.op("QLinearGlobalAveragePool", y, number(net, 0.04), zero, scale, zero,
               domain="com.microsoft", channels_last=0)  # fmt: skip
    net.declared.append(net.info(y, "N", 8, 1, 1, dtype=np.uint8))
    return tail(net, net.op("DequantizeLinear", y, scale, zero))


@graph("z", stays=["a"], locked="DynamicQuantizeLinear")
def dynamically_quantized_conv():
    """ConvInteger behind DynamicQuantizeLinear."""
    net = Net(3, 6, 6)
    y, scale, zero = net.op("DynamicQuantizeLinear", stem(net), outputs=3)
    y = net.op("ConvInteger", y, integers(net, 6, 8, 3, 3), zero, pads=[1] * 4)
    y = net.op("Mul", net.op("Cast", y, to=1), net.op("Mul", scale, number(net, 0.01)))
    return tail(net, net.op("Add", y, net.vector(6, 1, 1)), 6)


@graph("z", stays=["a"], locked="DynamicQuantizeLinear")
def dynamically_quantized_linear():
    net = Net(3, 4, 4)
    y = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])
    y, scale, zero = net.op("DynamicQuantizeLinear", y, outputs=3)
    y = net.op("MatMulInteger", y, integers(net, 8, 6), zero)
    y = net.op("Mul", net.op("Cast", y, to=1), net.op("Mul", scale, number(net, 0.01)))
    return tail(net, net.op("Transpose", y, perm=[0, 3, 1, 2]), 6)


@graph("a", stays=["p"], locked="QLinearMatMul")
def integer_classifier():
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net), 8, 6, name="p")
    y = quantized(net, net.op("Flatten", net.op("GlobalAveragePool", y)))
    y = net.op(
        "QLinearMatMul", y, number(net, 0.02), number(net, 120, np.uint8), integers(net, 6, 3),
        number(net, 0.01), number(net, 0, np.int8), number(net, 0.05), number(net, 128, np.uint8),
    )  # fmt: skip
    return net.model(net.op("DequantizeLinear", y, number(net, 0.05), number(net, 128, np.uint8)))


@graph("a", stays=["p"], locked="graph output")
def integer_output():
    net = Net(3, 6, 6)
    y = net.conv(stem(net), 8, 4, name="p")
    y = quantized(net, y)
    return net.model(y, types={y: UINT8})


def pair(net, x, scale, zero, **attrs):
    """QuantizeLinear and DequantizeLinear."""
    y = net.op("QuantizeLinear", x, scale, zero, **attrs)
    return net.op("DequantizeLinear", y, scale, zero, **attrs)


@graph("a", "z")
def activations_quantized_by_channel():
    net = Net(3, 6, 6)
    scale, zero = net.vector(8, low=0.01, high=0.02), net.raw(np.arange(100, 108, dtype=np.uint8))
    return tail(net, pair(net, stem(net), scale, zero, axis=1))


@graph("a", "z")
def activations_quantized_by_row():
    """An axis that is not the channels'."""
    net = Net(3, 6, 6)
    scale, zero = net.vector(6, low=0.01, high=0.02), net.raw(np.zeros(6, np.int8))
    return tail(net, pair(net, stem(net), scale, zero, axis=-2))


@graph("a", "b", "z")
def quantized_residual_stream():
    """Every activation through a pair; bias dequantized from 32 bits."""
    net = Net(3, 6, 6)
    zero = number(net, 128, np.uint8)

    def q(x, scale):
        return pair(net, x, number(net, scale), zero)

    def conv(x, c, m, name):
        w = net.op(
            "DequantizeLinear",
            integers(net, m, c, 3, 3),
            net.vector(m, low=0.001, high=0.003),
            net.raw(np.zeros(m, np.int8)),
            axis=0,
        )
        b = net.op("DequantizeLinear", integers(net, m, low=-900, high=900, dtype=np.int32),
                   net.vector(m, low=1e-4, high=2e-4), axis=0)  # fmt: skip
        return net.op("Conv", x, w, b, pads=[1] * 4, name=name)

    x = q(net.relu(conv(q("x", 0.03), 3, 8, "a")), 0.02)
    y = q(net.relu(conv(x, 8, 6, "b")), 0.02)
    y = q(conv(y, 6, 8, "c"), 0.02)
    return tail(net, q(net.relu(net.op("Add", x, y)), 0.02))


@graph("a", "b")
def weight_quantized_per_tensor():
    net = Net(3, 6, 6)
    w = net.op("DequantizeLinear", integers(net, 6, 8, 3, 3), number(net, 0.005),
               number(net, 3, np.int8))  # fmt: skip
    return tail(net, net.op("Conv", stem(net), w, pads=[1] * 4, name="b"), 6)


@graph("a", "fc")
def weight_quantized_in_blocks_of_filters():
    """One scale for two filters."""
    net = Net(3, 1, 1, opset=21, ir=10)
    y = net.relu(net.conv("x", 3, 8, 1, name="a"))
    w = net.op("DequantizeLinear", integers(net, 6, 8), net.vector(3, 8, low=0.001, high=0.01),
               axis=0, block_size=2)  # fmt: skip
    y = net.op("Gemm", net.op("Flatten", y), w, transB=1, name="fc")
    return net.model(net.gemm(net.relu(y), 6, 3))


@graph("a", "b")
def weight_of_four_bits():
    net = Net(3, 6, 6, opset=21, ir=10)
    import ml_dtypes

    values = net.rng.integers(-8, 8, (6, 8, 3, 3)).astype(ml_dtypes.int4)
    w = net.op("DequantizeLinear", net.raw(values), net.vector(6, low=0.01, high=0.05), axis=0)
    y = net.relu(net.op("Conv", stem(net), w, pads=[1] * 4, name="b"))
    y = net.op("GlobalAveragePool", y)
    return net.model(net.gemm(net.op("Flatten", y), 6, 3))


@graph("a", "fc")
def one_block_left():
    """One output, two blocks of inputs: onnxruntime wants no block size where one scale is left."""
    net = Net(3, 1, 1, opset=21, ir=10)
    y = net.op("Flatten", net.relu(net.conv("x", 3, 8, 1, name="a")))
    w = net.op("DequantizeLinear", integers(net, 8, 1), net.vector(2, 1, low=0.001, high=0.01),
               axis=0, block_size=4)  # fmt: skip
    gate = net.op("Sigmoid", net.op("Gemm", y, w))
    y = net.op("Mul", net.relu(net.gemm(y, 8, 6, name="fc")), gate)
    return net.model(net.gemm(y, 6, 3))
