"""Tiny graphs, continued: storage of weights, odd inputs and outputs, strangers in the graph."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.models import graph, stem
from tests.models_blocks import tail
from tests.net import Net

FLOAT = TensorProto.FLOAT

# Shared and derived weights.


@graph("a", "b")
def siamese():
    """Two inputs, one set of weights."""
    net = Net()
    w = net.weight(8, 3, 3, 3, fan_in=27, name="a.weight")
    v = net.weight(6, 8, 3, 3, fan_in=72, name="b.weight")
    arms = []
    for i, suffix in enumerate(("", "2")):
        x = net.input(f"x{i}", "N", 3, 6, 6)
        y = net.relu(net.op("Conv", x, w, pads=[1] * 4, name=f"a{suffix}"))
        arms.append(net.relu(net.op("Conv", y, v, pads=[1] * 4, name=f"b{suffix}")))
    return net.model(net.head(net.op("Sub", *arms), 6))


@graph("a", "b", "c")
def tied_zero_biases():
    """Exporters store equal tensors once; only one of the users may be sliced."""
    net = Net(3, 6, 6)
    zeros = net.store(np.zeros(8), "zeros")
    y = "x"
    for name, c in (("a", 3), ("b", 8), ("c", 8)):
        w = net.weight(8, c, 3, 3, fan_in=9 * c)
        y = net.relu(net.op("Conv", y, w, zeros, pads=[1] * 4, name=name))
    return net.model(net.head(y, 8))


@graph("a", "b")
def tied_batchnorm_vectors():
    """Vectors that are equal everywhere, read through Identity."""
    net = Net(3, 6, 6)
    ones, zeros = net.store(np.ones(8)), net.store(np.zeros(8))
    y = "x"
    for name, c in (("a", 3), ("b", 8), ("c", 8)):
        shared = [net.op("Identity", t) for t in (ones, zeros, zeros, ones)]
        y = net.conv(y, c, 8, bias=False, name=name)
        y = net.relu(net.op("BatchNormalization", y, *shared))
    return net.model(net.head(y, 8))


def _derived(derive):
    net = Net(3, 6, 6)
    return tail(net, net.op("Conv", stem(net), derive(net), pads=[1] * 4, name="b"), 6)


@graph("a", "b")
def weight_through_cast():
    return _derived(
        lambda net: net.op(
            "Cast", net.raw(net.rng.normal(size=(6, 8, 3, 3)).astype(np.float16)), to=FLOAT
        )
    )


@graph("a", "b")
def weight_through_transpose():
    return _derived(
        lambda net: net.op("Transpose", net.weight(8, 6, 3, 3, fan_in=72), perm=[1, 0, 2, 3])
    )


@graph("a", "b")
def weight_through_dequantize():
    return _derived(
        lambda net: net.op(
            "DequantizeLinear",
            net.raw(net.rng.integers(-90, 90, (6, 8, 3, 3)).astype(np.int8)),
            net.vector(6, low=0.001, high=0.01),
            net.raw(np.zeros(6, np.int8)),
            axis=0,
        )
    )


@graph("a", "b")
def weight_through_quantize_and_dequantize():
    """Fake quantization of a stored float: one scale for each filter."""

    def derive(net):
        scale, zero = net.vector(6, low=0.01, high=0.02), net.raw(np.zeros(6, np.int8))
        w = net.op("QuantizeLinear", net.weight(6, 8, 3, 3, fan_in=72), scale, zero, axis=0)
        return net.op("DequantizeLinear", w, scale, zero, axis=0)

    return _derived(derive)


@graph("fc", "a")
def weight_dequantized_in_blocks():
    """One scale for four inputs of one filter."""
    net = Net(3, 1, 1, opset=21, ir=10)
    y = net.relu(net.conv("x", 3, 8, 1, name="a"))
    values = net.raw(net.rng.integers(-90, 90, (8, 6)).astype(np.int8))
    scales = net.vector(2, 6, low=0.001, high=0.01)
    w = net.op("DequantizeLinear", values, scales, axis=0, block_size=4)
    y = net.op("Gemm", net.op("Flatten", y), w, name="fc")
    return net.model(net.gemm(net.relu(y), 6, 3))


@graph("a", "b")
def weight_in_a_constant_node():
    return _derived(
        lambda net: net.op(
            "Constant",
            value=numpy_helper.from_array(net.rng.normal(size=(6, 8, 3, 3)).astype(np.float32)),
        )
    )


@graph("a", "b")
def weight_through_reshape():
    return _derived(lambda net: net.reshape(net.weight(6, 72, fan_in=72), 6, 8, 3, 3))


@graph("a", "b")
def weight_norm():
    """g·v/‖v‖, computed in the graph."""

    def derive(net):
        v = net.weight(6, 8, 3, 3, fan_in=72)
        norm = net.op("ReduceL2", v, axes=[1, 2, 3], keepdims=1)
        return net.op("Mul", net.op("Div", v, norm), net.vector(6, 1, 1, 1, low=0.5, high=2.0))

    return _derived(derive)


@graph("a", "b")
def initializers_are_inputs():
    """IR version 3: every initializer is a graph input too."""
    net = Net(3, 6, 6, opset=8, ir=3)
    return net.model(net.head(net.conv_bn_relu(stem(net), 8, 6, name="b"), 6))


@graph("a", "b")
def half_precision():
    net = Net(3, 6, 6, dtype=np.float16)
    return net.model(net.head(net.conv_bn_relu(stem(net), 8, 6, name="b"), 6))


@graph("a", "b")
def double_precision():
    net = Net(3, 6, 6, dtype=np.float64)
    y = net.relu(net.conv(net.relu(net.conv("x", 3, 8, name="a")), 8, 6, name="b"))
    return net.model(net.head(y, 6))


@graph("a")
def quantized_activations():
    net = Net(3, 6, 6)
    scale, zero = net.store(np.array(0.05)), net.raw(np.array(0, np.int8))
    y = net.op("DequantizeLinear", net.op("QuantizeLinear", stem(net), scale, zero), scale, zero)
    return tail(net, y)


# Inputs and outputs.


@graph("a", "b")
def two_outputs():
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.conv_bn_relu(x, 8, 6, name="b")
    return net.model(net.head(y, 6), net.head(x, 8))


@graph("b", locked="graph output")
def hidden_tensor_is_an_output():
    net = Net(3, 6, 6)
    x = stem(net)
    return net.model(net.head(net.conv_bn_relu(x, 8, 6, name="b"), 6), x)


@graph("a", "b")
def dynamic_height_and_width():
    net = Net(3, "H", "W")
    x = stem(net)
    y = net.conv_bn_relu(x, 8, 6, name="b")
    n, c = net.size(y, 0), net.size(y, 1)
    y = net.reshape_computed(y, n, c, -1)
    return net.model(net.gemm(net.op("ReduceMean", y, axes=[2], keepdims=0), 6, 3))


@graph("a")
def fixed_batch_of_three():
    net = Net(3, 6, 6, batch=3)
    return net.model(net.gemm(net.reshape(stem(net), 3, 288), 288, 3))


@graph("a")
def channel_argmax_of_a_consumer():
    net = Net(3, 6, 6)
    y = net.op("ArgMax", net.conv(stem(net), 8, 5, 1), axis=1, keepdims=0)
    return net.model(y, types={y: TensorProto.INT64})


# Strangers.


@graph("z", locked="no rule for operator com.microsoft.Trilu")
def custom_operator():
    """An operator of a foreign domain that no rule knows: what touches it stays."""
    net = Net(3, 6, 6)
    net.domains["com.microsoft"] = 1
    y = net.op("Trilu", stem(net), domain="com.microsoft")
    net.declare(y, "N", 8, 6, 6)
    return tail(net, y)


@graph("a", "z")
def captured_by_a_subgraph():
    net = Net(3, 6, 6)
    x = stem(net)
    scale = net.vector(1, 8, 1, 1)
    branches = [
        helper.make_graph(
            [helper.make_node(op, [x, scale], [f"{op}_y"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_y", FLOAT, None)],
        )
        for op in ("Mul", "Add")
    ]
    condition = net.op("Greater", net.op("ReduceMax", "x", keepdims=0), net.store(np.array(9.0)))
    y = net.op("If", condition, then_branch=branches[0], else_branch=branches[1])
    y = net.op("Reshape", y, net.op("Shape", x))
    return tail(net, y)


@graph("a", "z")
def carried_by_a_loop():
    net = Net(3, 6, 6)
    x = stem(net)
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Relu", ["state"], ["next"]),
            helper.make_node("Identity", ["going"], ["still"]),
        ],
        "body",
        [
            info("i", TensorProto.INT64, []),
            info("going", TensorProto.BOOL, []),
            info("state", FLOAT, ["N", 8, 6, 6]),
        ],
        [info("still", TensorProto.BOOL, []), info("next", FLOAT, ["N", 8, 6, 6])],
    )
    trips = net.store(np.array(2, np.int64))
    y = net.op("Loop", trips, "", x, body=body)
    net.declare(y, "N", 8, 6, 6)
    return tail(net, y)


@graph("a", "einsum_3", "z")
def einsum():
    net = Net(3, 6, 6)
    return tail(
        net, net.op("Einsum", stem(net), net.weight(8, 8, fan_in=8), equation="nchw,dc->ndhw")
    )
