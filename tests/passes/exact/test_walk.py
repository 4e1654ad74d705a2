"""Equal numbers, equal values; a constant is constant; no value lies outside of its range."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_esn.graph.channels.groups import analyse
from onnx_esn.passes.exact.rules import RULES
from onnx_esn.passes.exact.values import Values
from onnx_esn.passes.exact.walk import number_values
from tests.graph.random_graphs import random_model
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import run
from tests.passes.exact.planting import plant


def tensors(analysis, names, seed):
    """Values of inner tensors, by running the model with them as outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(analysis.executable)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    feeds = feeds_for(model, analysis.facts.sizes, seed)
    return dict(zip(names, run(model, feeds), strict=True))


COARSE = {onnx.TensorProto.FLOAT16: 4e-3, onnx.TensorProto.BFLOAT16: 3e-2}


def check_numbers(model):
    """Every number of the walk against what the model computes; how many were not fresh."""
    analysis = analyse(model)
    walk = number_values(analysis, RULES)
    made = {o for node in analysis.executable.graph.node for o in node.output}
    names = [n for n in walk.ids if n in made]
    if not names:
        return 0
    seen, shared = {}, 0
    tolerance = max([COARSE.get(kind, 1e-4) for kind in analysis.facts.types.values()])
    for seed in range(2):
        found = tensors(analysis, names, seed)
        for name in names:
            y = found[name].astype(np.float64)
            if y.shape != analysis.facts.shapes.get(name):
                continue  # its size depends on the data
            axes = walk.axes(name)
            ids = walk.ids[name]
            assert all(n == (y.shape[a] if a in axes else 1) for a, n in enumerate(ids.shape)), name
            scale = tolerance * max(np.abs(y).max(), 1.0)
            rows = np.moveaxis(y, axes, range(len(axes)))
            rows = rows.reshape(int(np.prod(rows.shape[: len(axes)])), -1)
            ids = np.moveaxis(ids, axes, range(len(axes))).reshape(-1)
            low, high = walk.values.ranges(ids)
            assert (rows >= low[:, None] - scale).all(), name
            assert (rows <= high[:, None] + scale).all(), name
            for row, number in zip(rows, ids.tolist(), strict=True):
                key = seed, number, row.size
                other = seen.setdefault(key, row)
                assert np.abs(row - other).max(initial=0) <= scale, (name, number)
                shared += other is not row
    return shared


@pytest.mark.parametrize("name", MODELS)
def test_numbers_of_tiny_graphs(name):
    check_numbers(MODELS[name].build())


def only_the_reference_runs(model):
    """Whether onnxruntime lacks a kernel; the reference's old BatchNormalization trains."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # With it, the optimizer can make a model that is then refused.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except ort.capi.onnxruntime_pybind11_state.NotImplemented:
        return True
    return False


def check_seeds(seeds):
    shared = 0
    for seed in seeds:
        model = random_model(random.Random(seed))
        if not only_the_reference_runs(model):
            shared += check_numbers(plant(model, np.random.default_rng(seed)))
    assert shared > 10 * len(seeds)


def test_numbers_of_random_graphs():
    check_seeds(range(20))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(1, 11))
def test_numbers_of_many_random_graphs(block):
    check_seeds(range(100 * block, 100 * block + 100))


def bounded(activation):
    net = Net(3, 6, 6)
    y = net.op("Sigmoid", net.bn(net.conv("x", 3, 8), 8))
    y = net.conv(y, 8, 8, name="a")
    z = activation(net, net.bn(y, 8))
    z = net.relu(net.conv(z, 8, 4))
    return net.model(net.conv(z, 4, 4))


@pytest.mark.parametrize(
    "activation",
    [
        lambda net, y: net.op("LeakyRelu", y, alpha=0.2),
        lambda net, y: net.op("Clip", y, net.store(np.array(0.0)), net.store(np.array(6.0))),
        lambda net, y: net.op("PRelu", y, net.vector(8, 1, 1, low=0.1)),
        lambda net, y: net.op("PRelu", y, net.vector(8, 1, 1)),
        lambda net, y: net.op("Mul", y, net.op("HardSigmoid", y)),
        lambda net, y: net.op("Sub", net.op("Abs", y), net.op("Max", y, net.vector(8, 1, 1))),
        lambda net, y: net.op("Div", y, net.vector(8, 1, 1, low=0.5)),
        lambda net, y: net.op("AveragePool", y, kernel_shape=[3, 3], count_include_pad=1,
                              pads=[1] * 4),
        lambda net, y: net.op("Elu", net.op("Pad", y, net.ints(0, 0, 1, 1, 0, 0, 1, 1),
                                            net.store(np.array(2.5))), alpha=0.3),
    ],
    ids=["leaky", "clip", "prelu", "prelu of any sign", "swish", "sub", "div", "pool", "pad"],
)  # fmt: skip
def test_ranges(activation):
    check_numbers(bounded(activation))


def test_ranges_are_tight():
    """Positive weights meet the lower ends, negative ones the upper ends."""
    net = Net(2, 4, 4)
    y = net.op("HardSigmoid", "x", alpha=1.0, beta=0.5)
    y = net.conv(net.relu(net.conv(y, 2, 2, 1)), 2, 2, 1, name="a")
    y = net.op("HardSigmoid", y)
    model = net.model(net.conv(net.conv(y, 2, 3, 1, name="b"), 3, 2, 1))
    analysis = analyse(model)
    walk = number_values(analysis, RULES)
    reads, made = (n.output[0] for n in model.graph.node[-3:-1])
    a, b = walk.values.ranges(walk.ids[reads].reshape(-1))
    assert ((a >= 0) & (b <= 1)).all()
    low, high = walk.values.ranges(walk.ids[made].reshape(-1))
    W = analysis.constants.value("b.weight").reshape(3, 2).astype(float)
    up, down = np.maximum(W, 0), np.minimum(W, 0)
    bias = analysis.constants.value(next(n.input[2] for n in model.graph.node if n.name == "b"))
    np.testing.assert_allclose(low, up @ a + down @ b + bias, atol=1e-5)
    np.testing.assert_allclose(high, up @ b + down @ a + bias, atol=1e-5)


def test_values():
    values = Values()
    assert values.of("a") == values.of("a") != values.of("b")
    assert values.constant(0.0) == values.constant(-0.0)
    assert values.constant(float("nan")) == values.constant(float("nan"))
    assert np.isnan(values.constants(np.array([values.constant(np.inf)]))).all()
    many = values.fresh(5000)
    assert np.unique(many).size == 5000
    assert np.isnan(values.constants(many)).all()
    ids = values.within(many[:3], np.array([0, 1, 2.0]), np.array([1, 1 + 1e-9, np.nan]))
    assert ids[0] == many[0]
    assert values.constants(ids)[1] == pytest.approx(1)
    assert values.ranges(many[2:3])[1] == np.inf
