"""Branches that are always taken, and those that only look like it; fused operators; functions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_esn
from onnx_esn.graph.bodies import flattened, is_flat, restored
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.graph.standard_form import standard_form
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import (
    assert_sliced_is_masked,
    free_classes,
    relative_difference,
    rewrite_or_lock,
    run,
)


def branching(condition, shape=("N", 3, "H", "W")):
    """Doubles its input where `condition` of one of its sizes holds, halves it elsewhere."""
    axis, op, number = condition

    def branch(name, factor):
        value = numpy_helper.from_array(np.array(factor, np.float32), f"{name}_factor")
        nodes = [
            helper.make_node("Constant", [], [f"{name}_factor"], value=value),
            helper.make_node("Mul", ["x", f"{name}_factor"], [f"{name}_y"]),
        ]
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        return helper.make_graph(nodes, name, [], [out])

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "axis"], ["size"]),
        helper.make_node(op, ["size", "number"], ["condition"]),
        helper.make_node(
            "If",
            ["condition"],
            ["y"],
            then_branch=branch("double", 2.0),
            else_branch=branch("half", 0.5),
        ),
    ]
    tensors = [
        numpy_helper.from_array(np.array(axis), "axis"),
        numpy_helper.from_array(np.array(number), "number"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "branching",
        [info("x", TensorProto.FLOAT, shape)],
        [info("y", TensorProto.FLOAT, shape)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def branches(model):
    return sum(node.op_type == "If" for node in model.graph.node)


def test_sizes_that_the_model_cannot_have_say_nothing():
    """A ConvTranspose that leaves less than nothing of six columns."""
    model = branching((1, "Equal", 3))
    weight = numpy_helper.from_array(np.ones((3, 8, 1, 3), np.float32), "weight")
    model.graph.initializer.append(weight)
    crop = helper.make_node("ConvTranspose", ["y", "weight"], ["z"], "crop", pads=[0, 4, 0, 4])
    model.graph.node.append(crop)
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    assert branches(standard_form(model)) == 0
    assert analyse(model).facts.shapes["z"][1] == 8


@pytest.mark.parametrize("condition", [(1, "Equal", 3), (1, "Less", 2), (3, "Less", 1)])
def test_a_condition_that_never_changes_is_taken(condition):
    model = branching(condition)
    taken = standard_form(model)
    onnx.checker.check_model(taken, full_check=True)
    assert branches(taken) == 0
    for size in (1, 7, 40):
        feeds = feeds_for(model, {"x": (2, 3, size, size)})
        assert relative_difference(run(model, feeds), run(taken, feeds)) == 0


@pytest.mark.parametrize(
    "condition",
    [
        *[(0, "Equal", n) for n in (1, 2, 3)],
        *[(2, "Less", n) for n in (2, 20, 64, 128, 225, 300, 2000)],
        *[(3, "Greater", n) for n in (50, 100, 223, 400)],
        (3, "Equal", 224),
    ],
)
def test_a_condition_on_a_dynamic_axis_stays(condition):
    model = branching(condition)
    assert standard_form(model) is model
    assert branches(model) == 1


@pytest.mark.parametrize("name", MODELS)
def test_the_same_results(name):
    model = MODELS[name].build()
    before = model.SerializeToString()
    result = standard_form(model)
    assert model.SerializeToString() == before
    closed = restored(flattened(result))
    if result is model and closed is model:
        return
    onnx.checker.check_model(result, full_check=True)
    assert not result.functions
    feeds = feeds_for(model, analyse(model).facts.sizes)
    expected = run(model, feeds)
    assert relative_difference(expected, run(result, feeds)) < 1e-5
    assert relative_difference(expected, run(closed, feeds)) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_bodies_come_back_as_they_were(name):
    model = standard_form(MODELS[name].build())
    laid_open = flattened(model)
    if laid_open is model:
        assert not is_flat(model)
        return
    assert is_flat(laid_open)
    assert not any(n.op_type in ("If", "Loop", "Scan") for n in laid_open.graph.node)
    closed = restored(laid_open)
    onnx.checker.check_model(closed, full_check=True)
    assert [n.op_type for n in closed.graph.node] == [n.op_type for n in model.graph.node]
    assert not any(
        p.key.startswith("onnx_esn") for n in closed.graph.node for p in n.metadata_props
    )


@pytest.mark.parametrize("name", ["fused_conv", "functions_within_functions"])
def test_every_verb_sees_the_layers_inside(name):
    model = MODELS[name].build()
    layers = [x.name for x in analyse(model).layers]
    assert [x.name for x in onnx_esn.inspect(model).layers] == layers
    quantized = onnx_esn.quantize(model, bits=4)
    assert [x.layer for x in quantized.plan.layers] == layers
    assert onnx_esn.annotate(model).details["annotated"] == len(layers)


def test_a_weight_that_is_standardised_at_each_run_is_stored():
    """Shape of the weight, its own mean and variance, BatchNormalization: as exported unfolded."""
    net = Net(3, 6, 6)
    w = net.weight(8, 3, 3, 3, fan_in=27, name="w")
    size = net.op("Gather", net.op("Shape", w), net.store(np.array(0)))
    target = net.op(
        "Concat", net.ints(1), net.op("Unsqueeze", size, net.ints(0)), net.ints(-1), axis=0
    )
    rows = net.op("Reshape", w, target)
    one, zero = net.store(np.ones(8)), net.store(np.zeros(8))
    mean = net.op("ReduceMean", rows, axes=[0, 2], keepdims=0)
    away = net.op("Sub", rows, net.op("ReduceMean", rows, axes=[0, 2]))
    var = net.op("ReduceMean", net.op("Mul", away, away), axes=[0, 2], keepdims=0)
    rows = net.op("BatchNormalization", rows, one, zero, mean, var)
    w = net.op("Reshape", rows, net.op("Shape", w))
    x = net.relu(net.op("Conv", "x", w, name="a", kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    model = net.model(net.head(net.conv(x, 8, 6, name="b"), 6))
    analysis, removed, rewritten, _ = rewrite_or_lock(model, lambda a: free_classes(a)[::2])
    assert {m.node for g in analysis.groups if g.prunable for m in g.members} == {"a", "b"}
    assert_sliced_is_masked(analysis, removed, rewritten)
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    assert relative_difference(run(model, feeds), run(standard_form(model), feeds)) < 1e-5


def test_a_weight_made_deep_inside_a_network_stays_computed():
    """Its makers reach back to the input through more nodes than Python nests calls."""
    net = Net(3, 6, 6)
    x = net.relu(net.conv("x", 3, 8, name="a"))
    for _ in range(1500):
        x = net.op("Identity", x)
    mean = net.op("ReduceMean", x, axes=[0, 2, 3], keepdims=0)
    w = net.op(
        "Mul", net.weight(4, 8, 1, 1, fan_in=8), net.op("Reshape", mean, net.ints(1, 8, 1, 1))
    )
    model = net.model(net.head(net.op("Conv", x, w, name="b"), 4))
    assert standard_form(model) is model
