"""Expected values in closed form against a measurement on Gaussian channels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_esn.graph.channels.expectation import expectations
from onnx_esn.graph.channels.groups import analyse
from tests.net import Net, feeds_for
from tests.oracles.equivalence import run

SAMPLES = 20_000
C = 6


def normalised(net, x, name="a"):
    """Channels that are N(β, γ²) when x is standard normal: an orthogonal layer and BatchNorm."""
    q = np.linalg.qr(net.rng.normal(size=(C, C)))[0].reshape(C, C, 1, 1)
    y = net.op("Conv", x, net.store(q), name=name)
    gamma, beta = net.vector(C, low=0.5, high=1.5), net.vector(C, low=-1, high=1)
    fixed = net.store(np.zeros(C)), net.store(np.ones(C))
    return net.op("BatchNormalization", y, gamma, beta, *fixed, epsilon=0.0)


FUNCTIONS = {
    "relu": lambda net, y: net.relu(y),
    "leaky relu": lambda net, y: net.op("LeakyRelu", y, alpha=0.1),
    "silu": lambda net, y: net.op("Mul", y, net.op("Sigmoid", y)),
    "gelu": lambda net, y: net.op(
        "Mul",
        net.op("Mul", y, net.store(np.array(0.5))),
        net.op("Add", net.op("Erf", net.op("Div", y, net.store(np.array(2**0.5)))),
               net.store(np.array(1.0))),
    ),
    "square": lambda net, y: net.op("Mul", y, y),
    "relu6": lambda net, y: net.op("Clip", y, net.store(np.array(0.0)), net.store(np.array(6.0))),
    "prelu": lambda net, y: net.op("PRelu", y, net.vector(C, 1, 1)),
    "scale per channel": lambda net, y: net.op("Mul", net.relu(y), net.vector(C, 1, 1)),
    "constant first": lambda net, y: net.op("Sub", net.vector(C, 1, 1), net.op("Tanh", y)),
    "where": lambda net, y: net.op(
        "Where", net.store(np.arange(C).reshape(C, 1, 1) % 2 == 0), y, net.store(np.array(0.5))
    ),
    "residual": lambda net, y: net.op(
        "Add", net.relu(y), net.relu(normalised(net, net.input("z", "N", C, 1, 1), "b"))
    ),
    "gate": lambda net, y: net.op(
        "Mul", y, net.op("Sigmoid", normalised(net, net.input("z", "N", C, 1, 1), "b"))
    ),
    "moved": lambda net, y: net.op(
        "Gather", net.op("Transpose", net.relu(y), perm=[0, 2, 3, 1]), net.ints(3, 0, 5, 1), axis=3
    ),
    "concat": lambda net, y: net.op("Concat", net.relu(y), y, axis=1),
    "average pool": lambda net, y: net.op(
        "AveragePool", net.relu(y), kernel_shape=[1, 1], strides=[1, 1]
    ),
    "global pool": lambda net, y: net.op("Flatten", net.op("GlobalAveragePool", net.relu(y))),
    "mean over pixels": lambda net, y: net.op("ReduceMean", net.relu(y), axes=[2, 3], keepdims=0),
    "resized": lambda net, y: net.op(
        "Resize", net.relu(y), "", net.store(np.array([1, 1, 2, 2], np.float32)), mode="nearest"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_moments_are_those_of_a_sample(name):
    net = Net(C, 1, 1)
    y = FUNCTIONS[name](net, normalised(net, "x"))
    model = net.model(y)
    found = expectations(analyse(model))[y]
    sizes = {i.name: (SAMPLES, C, 1, 1) for i in model.graph.input}
    (out,) = run(model, feeds_for(model, sizes))
    axes = tuple(a for a, n in enumerate(out.shape) if a == 0 or n == 1)
    measured = out.astype(np.float64)
    mean, variance = measured.mean(axes), measured.var(axes)
    shape = [1, *out.shape[1:]]
    got = [np.broadcast_to(v, shape) for v in (found.mean, found.variance)]
    np.testing.assert_allclose(got[0].mean(axes), mean, atol=0.05)
    np.testing.assert_allclose(got[1].mean(axes), variance, atol=0.1 + 0.1 * variance.max())


@pytest.mark.parametrize("padded", [0, 1])
def test_a_padded_average_of_a_constant_varies(padded):
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 4, name="a")
    net.tensors[0].CopyFrom(
        onnx.numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "a.weight")
    )
    y = net.op(
        "AveragePool",
        y,
        kernel_shape=[3, 3],
        pads=[1] * 4,
        strides=[2, 2],
        count_include_pad=padded,
    )
    model = net.model(net.conv(y, 4, 2, 1))
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(helper.make_tensor_value_info(y, TensorProto.FLOAT, None))
    out = run(shown, feeds_for(model, {"x": (2, 3, 6, 6)}))[1]
    found = expectations(analyse(model))[y]
    np.testing.assert_allclose(found.mean.reshape(-1), out.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.variance.reshape(-1), out.var((0, 2, 3)), atol=1e-6)
    assert (found.variance > 0).all() == bool(padded)


def test_a_depthwise_layer_passes_means_on():
    net = Net(C, 5, 5)
    weight, bias = net.weight(2 * C, 1, 3, 3, fan_in=9), net.vector(2 * C)
    y = net.op("Conv", normalised(net, "x"), weight, bias, group=C, pads=[1, 0, 1, 0])
    model = net.model(y)
    found = expectations(analyse(model))[y]
    (out,) = run(model, feeds_for(model, {"x": (4000, C, 5, 5)}))
    np.testing.assert_allclose(found.mean.reshape(-1), out.mean((0, 2, 3)), atol=0.03)
    assert np.isnan(found.variance).all()


def test_what_is_not_known_is_nan_or_absent():
    net = Net(3, 6, 6)
    x = net.relu(net.conv("x", 3, 4, name="a"))
    y = net.op("CumSum", x, net.store(np.array(2, np.int64)))
    model = net.model(net.conv(y, 4, 2, 1))
    found = expectations(analyse(model))
    assert np.isnan(found[x].mean).all()
    assert y not in found


def test_nothing_times_anything_is_nothing():
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 4, bias=False, name="a")
    net.tensors[0].CopyFrom(
        onnx.numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "a.weight")
    )
    gate = net.op("Sigmoid", net.conv("x", 3, 4, 1))
    y = net.op("Mul", net.relu(y), gate)
    found = expectations(analyse(net.model(net.conv(y, 4, 2, 1))))[y]
    assert not found.mean.any()
    assert not found.variance.any()
