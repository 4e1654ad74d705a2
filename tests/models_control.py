"""Tiny graphs, continued: branches, loops, local functions, operators of foreign domains."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.models import graph, stem
from tests.models_blocks import tail
from tests.net import Net

MICROSOFT = "com.microsoft"


def warm(net):
    """A condition that only the data decides."""
    return net.op("Greater", net.op("ReduceMax", "x", keepdims=0), net.store(np.array(1.0)))


def branches(net, condition, build, shape, name="choice", declared=True):
    """If with a body for each branch: `build` gets a builder and whether the condition holds."""
    bodies = {}
    for key, holds in (("then_branch", True), ("else_branch", False)):
        inner = Net(prefix=f"{name}_{key}_", seed=int(holds), opset=net.opset)
        y = build(inner, holds)
        info = helper.make_tensor_value_info(y, TensorProto.FLOAT, shape if declared else None)
        bodies[key] = inner.body(info)
    y = net.op("If", condition, name=name, **bodies)
    net.declare(y, *shape)
    return y


# Branches.


@graph("a", "z")
def if_that_reads_channels():
    net = Net(3, 6, 6)
    x = stem(net)
    y = branches(
        net,
        warm(net),
        lambda inner, holds: inner.op("Relu" if holds else "Sigmoid", x),
        ("N", 8, 6, 6),
    )
    return tail(net, y)


@graph("a", "z")
def if_that_makes_channels():
    """A convolution in each branch, of the same width."""
    net = Net(3, 6, 6)
    x = stem(net)
    y = branches(
        net,
        warm(net),
        lambda inner, holds: inner.relu(inner.conv(x, 8, 6, 3 if holds else 1)),
        ("N", 6, 6, 6),
    )
    return tail(net, y, 6)


@graph("a", "z")
def if_beside_the_channels():
    """The branches only choose a gate for each image; no channel is read."""
    net = Net(3, 6, 6)
    x = stem(net)
    gate = branches(net, warm(net), lambda inner, holds: inner.store(np.array([0.5 + holds])), (1,))
    return tail(net, net.op("Mul", x, gate))


@graph("a", "b", "z")
def if_with_a_constant_condition():
    """Only one branch is ever taken."""
    net = Net(3, 6, 6)
    x = stem(net)
    y = branches(
        net,
        net.raw(np.array(True)),
        lambda inner, holds: inner.relu(
            inner.conv(x, 8, 6, 3 if holds else 1, name="b" if holds else "c")
        ),
        ("N", 6, 6, 6),
    )
    return tail(net, y, 6)


@graph("a", "z")
def if_on_the_rank():
    """TorchScript's squeeze: an If on the size of an axis, known at any size."""
    net = Net(3, 6, 6)
    y = net.op("GlobalAveragePool", stem(net))
    one = net.op("Equal", net.size(y, 3), net.ints(1))
    y = branches(
        net,
        one,
        lambda inner, holds: (
            inner.op("Squeeze", y, inner.ints(3)) if holds else inner.op("Identity", y)
        ),
        ("N", 8, 1),
        declared=False,
    )
    y = net.op("Unsqueeze", y, net.ints(3))
    return tail(net, y)


@graph("a", "z")
def if_with_names_used_twice():
    """Two Ifs whose bodies use the same names; only the first condition is known."""
    net = Net(3, 6, 6)
    x = stem(net)
    y = branches(
        net,
        net.raw(np.array(False)),
        lambda inner, holds: inner.op("Relu" if holds else "Sigmoid", x),
        ("N", 8, 6, 6),
        name="first",
    )
    gate = branches(net, warm(net), lambda inner, holds: inner.store(np.array([0.5 + holds])), (1,))
    for node in net.nodes:
        for attribute in node.attribute:
            for branch in ("then", "else"):
                _renamed(attribute.g, f"first_{branch}_branch_", "in_")
                _renamed(attribute.g, f"choice_{branch}_branch_", "in_")
    return tail(net, net.op("Mul", y, gate))


def _renamed(graph, old, new):
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [n.replace(old, new) for n in names]
    for part in (graph.initializer, graph.output):
        for x in part:
            x.name = x.name.replace(old, new)


# Loops.


@graph("a", "z")
def loop_with_a_layer_inside():
    """The same convolution, three times over the state."""
    net = Net(3, 6, 6)
    x = stem(net)
    inner = Net(prefix="body_")
    inner.inputs += [inner.info("i", dtype=np.int64), inner.info("on", dtype=bool)]
    state = inner.input("state", "N", 8, 6, 6)
    going = inner.op("Identity", "on")
    y = inner.op("Tanh", inner.conv(state, 8, 8))
    body = inner.body(inner.info(going, dtype=bool), inner.info(y, "N", 8, 6, 6))
    y = net.op("Loop", net.raw(np.array(3)), "", x, body=body)
    net.declare(y, "N", 8, 6, 6)
    return tail(net, y)


@graph("a", "z")
def loop_that_captures_channels():
    """The body reads features from outside and stacks what it makes."""
    net = Net(3, 6, 6, batch=2)
    x = stem(net)
    inner = Net(prefix="body_")
    inner.inputs += [inner.info("i", dtype=np.int64), inner.info("on", dtype=bool)]
    going = inner.op("Identity", "on")
    y = inner.op("Mul", x, inner.op("Cast", "i", to=TensorProto.FLOAT))
    body = inner.body(inner.info(going, dtype=bool), inner.info(y, 2, 8, 6, 6))
    y = net.op("Loop", net.raw(np.array(3)), "", body=body)
    net.declare(y, 3, 2, 8, 6, 6)
    return tail(net, net.op("ReduceMean", y, axes=[0], keepdims=0))


@graph("a", "z")
def scan_over_columns():
    """A recurrence over the columns of pixels, its layer inside the body."""
    net = Net(3, 6, 6, batch=2)
    columns = net.op("Transpose", stem(net), perm=[3, 0, 1, 2])  # (W, N, C, H)
    inner = Net(prefix="body_")
    state, column = inner.input("state", 2, 8, 6), inner.input("column", 2, 8, 6)
    y = inner.op("Tanh", inner.op("Add", state, inner.conv(column, 8, 8, rank=1)))
    z = inner.op("Identity", y)
    body = inner.body(inner.info(y, 2, 8, 6), inner.info(z, 2, 8, 6))
    start = net.store(np.zeros((2, 8, 6)))
    _, y = net.op("Scan", start, columns, outputs=2, body=body, num_scan_inputs=1)
    return tail(net, net.op("Transpose", y, perm=[1, 2, 3, 0]))


# Local functions.


def function(net, name, inputs, outputs, build, domain="pkg", attributes=()):
    """A local function; `build` gets a builder whose stored tensors become Constant nodes."""
    inner = Net(prefix=f"{name}_", opset=net.opset)
    names = build(inner)
    made = [helper.make_node("Constant", [], [t.name], name=t.name, value=t) for t in inner.tensors]
    ends = [
        helper.make_node("Identity", [n], [o], f"{name}_{o}")
        for n, o in zip(names, outputs, strict=True)
    ]
    net.functions.append(
        helper.make_function(
            domain,
            name,
            inputs,
            outputs,
            [*made, *inner.nodes, *ends],
            [helper.make_opsetid("", net.opset), helper.make_opsetid(domain, 1)],
            attributes,
        )
    )
    net.domains[domain] = 1


@graph("a", "z")
def function_of_an_activation():
    net = Net(3, 6, 6)
    function(net, "swish", ["v"], ["w"], lambda f: [f.op("Mul", "v", f.op("Sigmoid", "v"))])
    y = net.op("swish", stem(net), domain="pkg")
    net.declare(y, "N", 8, 6, 6)
    return tail(net, y)


@graph("a", "z")
def functions_within_functions():
    """As torch modules are exported: a block that calls another one, weights passed in."""
    net = Net(3, 6, 6)
    function(net, "act", ["v"], ["w"], lambda f: [f.op("Relu", "v")])
    function(
        net, "block", ["v", "weight", "bias"], ["w"],
        lambda f: [f.op("act", f.op("Conv", "v", "weight", "bias", pads=[1] * 4), domain="pkg")],
    )  # fmt: skip
    y, c = stem(net), 8
    for m in (6, 7):
        y = net.op("block", y, net.weight(m, c, 3, 3, fan_in=9 * c), net.vector(m), domain="pkg")
        net.declare(y, "N", m, 6, 6)
        c = m
    return tail(net, y, 7)


@graph("a", "z")
def function_with_an_attribute():
    """As the dynamo exporter writes them: a function with an attribute, called twice."""
    net = Net(3, 6, 6)
    inner = helper.make_node("LeakyRelu", ["v"], ["w"], "inner")
    alpha = inner.attribute.add(name="alpha", ref_attr_name="negative_slope")
    alpha.type = 1
    net.functions.append(
        helper.make_function(
            "pkg.torch", "aten_leaky", ["v"], ["w"], [inner], [helper.make_opsetid("", 17)],
            ["negative_slope"],
        )
    )  # fmt: skip
    net.domains["pkg.torch"] = 1
    y = net.op("aten_leaky", stem(net), domain="pkg.torch", negative_slope=0.1)
    net.declare(y, "N", 8, 6, 6)
    y = net.op("aten_leaky", net.conv(y, 8, 8), domain="pkg.torch", negative_slope=0.2)
    net.declare(y, "N", 8, 6, 6)
    return tail(net, y)


@graph("a", "z")
def function_with_weights_inside():
    net = Net(3, 6, 6)
    function(net, "layer", ["v"], ["w"], lambda f: [f.relu(f.conv("v", 8, 6))])
    y = net.op("layer", stem(net), domain="pkg")
    net.declare(y, "N", 6, 6, 6)
    return tail(net, y, 6)


@graph("a", "z")
def function_with_two_outputs():
    """The second output is left out by one call, and read by the other."""
    net = Net(3, 6, 6)
    function(net, "pair", ["v"], ["w", "u"], lambda f: [f.op("Relu", "v"), f.op("Sigmoid", "v")])
    x = stem(net)
    node = helper.make_node("pair", [x], ["first", ""], "pair_0", domain="pkg")
    net.nodes.append(node)
    net.declare("first", "N", 8, 6, 6)
    net.nodes.append(helper.make_node("pair", ["first"], ["u", "v"], "pair_1", domain="pkg"))
    for name in "uv":
        net.declare(name, "N", 8, 6, 6)
    return tail(net, net.op("Mul", "u", "v"))


# Operators of onnxruntime.


def _runtime(shape=(3, 6, 6), **options):
    net = Net(*shape, **options)
    net.domains[MICROSOFT] = 1
    return net


def _fused(net, op_type, *inputs, shape, **attrs):
    y = net.op(op_type, *inputs, domain=MICROSOFT, **attrs)
    net.declare(y, *shape)
    return y


@graph("a", "f", "z")
def fused_conv():
    """Conv, an addend and an activation in one operator."""
    net = _runtime()
    x = stem(net)
    w, b = net.weight(8, 8, 3, 3, fan_in=72), net.vector(8)
    shape = ("N", 8, 6, 6)
    y = _fused(net, "FusedConv", x, w, b, x, shape=shape, pads=[1] * 4, activation="Relu", name="f")
    y = _fused(net, "FusedConv", y, w, b, shape=shape, pads=[1] * 4, activation="LeakyRelu",
               activation_params=[0.1])  # fmt: skip
    y = _fused(net, "FusedConv", y, w, b, shape=shape, pads=[1] * 4, activation="Clip",
               activation_params=[-1.0, 1.0])  # fmt: skip
    return tail(net, y)


@graph("a", "f")
def fused_gemm():
    net = _runtime()
    y = net.op("Flatten", net.op("GlobalAveragePool", stem(net)))
    y = _fused(net, "FusedGemm", y, net.weight(6, 8, fan_in=8), net.vector(6), shape=("N", 6),
               transB=1, activation="Relu", name="f")  # fmt: skip
    return net.model(net.gemm(y, 6, 3))


@graph("a", "f", "g")
def fused_matmul():
    net = _runtime((3, 4, 4))
    y = net.op("Transpose", net.reshape(stem(net), 0, 8, 16), perm=[0, 2, 1])
    y = _fused(
        net, "FusedMatMul", y, net.weight(8, 6, fan_in=8), shape=("N", 16, 6), alpha=0.5, name="f"
    )
    y = _fused(
        net, "FusedMatMul", y, net.weight(5, 6, fan_in=6), shape=("N", 16, 5), transB=1, name="g"
    )
    y = net.op("ReduceMean", y, axes=[1], keepdims=0)
    return net.model(net.gemm(y, 5, 3))


@graph("a", "f", "z")
def fused_activations():
    """QuickGelu, FastGelu with a bias, BiasGelu, Gelu."""
    net = _runtime((3, 4, 4))
    x = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])
    shape = ("N", 4, 4, 8)
    y = _fused(net, "QuickGelu", x, shape=shape, alpha=1.702)
    y = net.op("MatMul", y, net.weight(8, 8, fan_in=8), name="f")
    y = _fused(net, "BiasGelu", y, net.vector(8), shape=shape)
    y = _fused(net, "FastGelu", y, net.vector(8), shape=shape)
    y = _fused(net, "Gelu", y, shape=shape)
    return tail(net, net.op("Transpose", y, perm=[0, 3, 1, 2]))


@graph("z", stays=["a"], locked="SkipLayerNormalization")
def fused_layer_norm():
    net = _runtime((3, 4, 4))
    x = net.op("Transpose", net.reshape(stem(net), 0, 8, 16), perm=[0, 2, 1])
    y = net.linear(x, 8, 8)
    y = _fused(
        net, "SkipLayerNormalization", x, y, net.vector(8), net.vector(8), shape=("N", 16, 8)
    )
    return tail(net, net.reshape(net.op("Transpose", y, perm=[0, 2, 1]), 0, 8, 4, 4))


@graph("z", stays=["a"], locked="com.microsoft.NhwcMaxPool")
def nhwc_operators():
    """Pooling of quantized channels-last tensors: nobody knows what it does to channels."""
    net = _runtime((3, 6, 6))
    scale, zero = net.store(np.array(0.05)), net.raw(np.array(3, np.int8))
    y = net.op("QuantizeLinear", net.op("Transpose", stem(net), perm=[0, 2, 3, 1]), scale, zero)
    y = net.op("NhwcMaxPool", y, domain=MICROSOFT, kernel_shape=[2, 2], strides=[2, 2])
    net.declared.append(net.info(y, "N", 3, 3, 8, dtype=np.int8))
    y = net.op("DequantizeLinear", y, scale, zero)
    return tail(net, net.op("Transpose", y, perm=[0, 3, 1, 2]))


@graph("a", "z", stays=["q"], locked="MultiHeadAttention")
def fused_attention():
    net = _runtime((3, 4, 4))
    x = net.op("Transpose", net.reshape(stem(net), 0, 8, 16), perm=[0, 2, 1])
    q = net.op("MatMul", x, net.weight(8, 8, fan_in=8), name="q")
    k, v = (net.linear(x, 8, 8) for _ in range(2))
    y = _fused(net, "MultiHeadAttention", q, k, v, shape=("N", 16, 8), num_heads=2)
    return tail(net, net.reshape(net.op("Transpose", y, perm=[0, 2, 1]), 0, 8, 4, 4))
