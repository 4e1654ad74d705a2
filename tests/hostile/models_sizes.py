"""Hostile models, continued: a few bytes that ask for more memory or time than there is."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.hostile.models import hostile, saved
from tests.hostile.verbs import SHAPE
from tests.net import Net


def _made(folder, make):
    """A model whose second layer reads a weight that `make` computes."""
    net = Net(*SHAPE, opset=18)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.op("Conv", y, make(net), pads=[1] * 4, kernel_shape=[3, 3], name="b")
    y = net.op("Flatten", net.op("GlobalAveragePool", net.relu(y)))
    return _kept(net, y, folder)


def _beside(folder, make):
    """A model that adds up what `make` computes, and reads it nowhere else."""
    net = Net(*SHAPE, opset=18)
    y = net.head(net.relu(net.conv("x", 3, 8, name="a")), 8)
    value = make(net)
    y = net.op("Add", y, net.op("ReduceMax", value, keepdims=0))
    return _kept(net, y, folder)


def _kept(net, y, folder):
    """Written without asking onnx for its shapes."""
    output = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(net.nodes, "net", net.inputs, [output], net.tensors)
    opset = [helper.make_opsetid("", net.opset)]
    return saved(helper.make_model(graph, opset_imports=opset, ir_version=8), folder)


def _filled(net, *sizes):
    return net.op("ConstantOfShape", net.ints(*sizes))


def _one(net):
    return net.store(np.ones((1, 1, 1, 1)))


HUGE = 2**20


def _expanded(net):
    return net.op("Expand", _one(net), net.ints(HUGE, HUGE, 3, 3))


def _tiled(net):
    return net.op("Tile", _one(net), net.ints(HUGE, HUGE, 3, 3))


def _range(net):
    many = net.op("Range", net.raw(np.int64(0)), net.raw(np.int64(2**40)), net.raw(np.int64(1)))
    return net.op("Cast", many, to=1)


def _padded(net):
    return net.op("Pad", _one(net), net.ints(0, 0, 0, 0, HUGE, HUGE, 0, 0))


def _resized(net):
    return net.op(
        "Resize", _one(net), "", net.store(np.array([1, 1, 1e6, 1e6], np.float32)), mode="nearest"
    )


def _one_hot(net):
    depth = net.raw(np.int64(2**40))
    return net.op("OneHot", net.ints(1, 2), depth, net.store(np.array([0.0, 1.0])))


def _doubled(net):
    y = net.store(np.ones((8, 8, 3, 3)))
    for _ in range(40):
        y = net.op("Concat", y, y, axis=0)
    return y


def _broadcast(net):
    y = net.store(np.ones((1, 1, 1, 1)))
    for axis in range(4):
        sizes = [1] * 4
        sizes[axis] = 4096
        y = net.op("Add", y, net.store(np.ones(sizes)))
    return y


def _outer(net):
    a = net.store(np.ones((1 << 17, 1)))
    return net.op("MatMul", a, net.op("Transpose", a, perm=[1, 0]))


def _gathered(net):
    y = net.store(np.ones((8, 1)))
    for _ in range(10):
        y = net.op("Gather", y, net.raw(np.zeros((64, 64), np.int64)), axis=0)
    return y


def _product(net):
    """A long computation on constants of a moderate size."""
    y = net.store(np.ones((1500, 1500)) / 1500)
    for _ in range(300):
        y = net.op("MatMul", y, y)
    return y


def _eye(net):
    return net.op("EyeLike", _filled(net, HUGE, HUGE), dtype=1)


def _negative(net):
    return _filled(net, -8, 8, 3, 3)


def _many(net):
    """Many constants, each of a size that would pass."""
    parts = [
        net.op("ReduceMax", net.op("Exp", _filled(net, 4000, 5000)), keepdims=0) for _ in range(60)
    ]
    return net.op("Sum", *parts)


def _texts(net):
    y = net.raw(np.array(["a" * 1000], object))
    for _ in range(40):
        y = net.op("StringConcat", y, y)
    return net.op("Cast", net.op("Equal", y, y), to=1)


MAKE = {
    "filled": lambda net: _filled(net, HUGE, HUGE, 3, 3),
    "filled_once_too_often": lambda net: _filled(net, 2**33, 2**33, 3, 3),
    "expanded": _expanded, "tiled": _tiled, "range": _range, "padded": _padded,
    "resized": _resized, "one_hot": _one_hot, "doubled": _doubled, "broadcast": _broadcast,
    "outer": _outer, "gathered": _gathered, "long": _product, "eye": _eye,
    "negative": _negative, "many": _many, "texts": _texts,
}  # fmt: skip

for _name, _make in MAKE.items():
    for _place, _put in {"weight": _made, "value": _beside}.items():

        def _build(folder, make=_make, put=_put):
            return put(folder, make)

        _build.__name__ = f"{_name}_{_place}"
        hostile()(_build)


def _grown(folder, grow):
    """A model whose activations grow."""
    net = Net(*SHAPE, opset=18)
    y = grow(net, net.relu(net.conv("x", 3, 8, name="a")))
    y = net.relu(net.conv(y, 8, 6, name="b"))
    y = net.gemm(net.op("Flatten", net.op("GlobalAveragePool", y)), 6, 3)
    return _kept(net, y, folder)


@hostile()
def resized_activation(folder):
    def grow(net, y):
        return net.op("Resize", y, "", net.store(np.array([1, 1, 1e6, 1e6], np.float32)))

    return _grown(folder, grow)


@hostile()
def padded_activation(folder):
    return _grown(folder, lambda net, y: net.op("Pad", y, net.ints(0, 0, 0, 0, 0, 0, HUGE, HUGE)))


@hostile()
def tiled_activation(folder):
    return _grown(folder, lambda net, y: net.op("Tile", y, net.ints(1, 1, HUGE, HUGE)))


@hostile()
def tiled_channels(folder):
    def grow(net, y):
        y = net.op("Tile", y, net.ints(1, 2**36, 1, 1))
        return net.op("Slice", y, net.ints(0), net.ints(8), net.ints(1))

    return _grown(folder, grow)


@hostile()
def expanded_activation(folder):
    def grow(net, y):
        y = net.op("Expand", net.op("Unsqueeze", y, net.ints(1)), net.ints(1, 2**36, 1, 1, 1))
        return net.op("ReduceMax", y, net.ints(1), keepdims=0)

    return _grown(folder, grow)


@hostile()
def doubled_activation(folder):
    def grow(net, y):
        for _ in range(40):
            y = net.op("Concat", y, y, axis=1)
        return net.op("Slice", y, net.ints(0), net.ints(8), net.ints(1))

    return _grown(folder, grow)


@hostile()
def strided_deconvolution(folder):
    return _grown(folder, lambda net, y: net.deconv(y, 8, 8, strides=[2**30, 2**30]))


@hostile()
def a_loop_without_end(folder):
    """A Loop that turns for hours: nobody may run it unasked."""
    net = Net(*SHAPE, opset=18)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    inner = Net(prefix="body_")
    inner.inputs += [inner.info("i", dtype=np.int64), inner.info("on", dtype=bool)]
    inner.input("state", "N", 8, 6, 6)
    on, state = inner.op("Identity", "on"), inner.op("Tanh", "state")
    body = inner.body(inner.info(on, dtype=bool), inner.info(state, "N", 8, 6, 6))
    y = net.op("Loop", net.raw(np.int64(2**62)), net.raw(np.array(True)), y, body=body)
    return _kept(net, net.gemm(net.op("Flatten", net.op("GlobalAveragePool", y)), 8, 3), folder)


@hostile()
def twenty_thousand_nodes(folder):
    net = Net(*SHAPE)
    y = net.conv("x", 3, 8, name="a")
    for _ in range(20_000):
        y = net.relu(y)
    return _kept(net, net.head(y, 8), folder)


@hostile()
def a_node_with_a_hundred_thousand_inputs(folder):
    net = Net(*SHAPE)
    y = net.conv("x", 3, 8, name="a")
    y = net.op("Sum", *[y] * 100_000)
    return _kept(net, net.head(y, 8), folder)


@hostile()
def a_hundred_thousand_initializers(folder):
    net = Net(*SHAPE)
    y = net.head(net.relu(net.conv("x", 3, 8, name="a")), 8)
    model = onnx.load(_kept(net, y, folder))
    for i in range(100_000):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(i), f"unused_{i}"))
    return saved(model, folder)
