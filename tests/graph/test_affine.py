"""What is behind a layer, filter by filter: followed in the graph, and run."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_esn.graph.channels.groups import analyse
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.norms.affine import Affine, affine_behind
from onnx_esn.graph.readers import readers
from onnx_esn.graph.rewrite.bias import BiasDelta, add_to_biases
from onnx_esn.passes.layerwise.following import find_plain_layers
from tests.net import Net, feeds_for
from tests.oracles.equivalence import run, sizes_of
from tests.passes.layerwise.samples import with_outputs

STEPS = ("norm", "add", "left add", "sub", "mul", "scalar")


def behind(model: onnx.ModelProto, name: str) -> Affine:
    layer = next(x for x in find_plain_layers(model) if x.name == name)
    return affine_behind(model, readers(model), Constants(model), layer)


def extended(net: Net, y: str, steps: list[str], shape: tuple[int, ...]) -> str:
    """Operations for each of 5 filters behind a tensor."""
    for step in steps:
        value = net.weight(*(() if step == "scalar" else shape), fan_in=1)
        if step == "norm":
            y = net.bn(y, 5)
        elif step == "left add":
            y = net.op("Add", value, y)
        else:
            y = net.op({"scalar": "Mul"}.get(step, step.title()), y, value)
    return y


@settings(max_examples=40)
@given(st.booleans(), st.lists(st.sampled_from(STEPS), max_size=4))
def test_what_is_followed_is_what_the_model_computes(conv: bool, steps: list[str]) -> None:
    net = Net(3, 6, 6)
    if conv:
        y = net.conv("x", 3, 5, name="layer")
    else:
        steps = [step for step in steps if step != "norm"]
        rows = net.op("Transpose", "x", perm=[0, 2, 3, 1])
        y = net.op("MatMul", rows, net.weight(3, 5, fan_in=3), name="layer")
    z = extended(net, y, steps, (5, 1, 1) if conv else (5,))
    model = net.model(net.relu(z))
    found = behind(model, "layer")
    assert found.output == z
    feeds = feeds_for(model, sizes_of(model))
    before, after = run(with_outputs(model, y, z), feeds)
    axis = 1 if conv else 3
    before, after = np.moveaxis(before, axis, -1), np.moveaxis(after, axis, -1)
    np.testing.assert_allclose(before * found.gain + found.shift, after, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("what", ["read twice", "an output", "by place", "turned", "data"])
def test_what_is_not_for_each_filter_is_not_followed(what: str) -> None:
    net = Net(3, 6, 6)
    y = net.op("Transpose", net.conv("x", 3, 5), perm=[0, 2, 3, 1])
    y = net.op("MatMul", y, net.weight(5, 5, fan_in=5), name="layer")
    if what == "turned":
        z = net.op("Sub", net.weight(5, fan_in=1), y)
    elif what == "data":
        z = net.op("Add", y, y)
    else:
        z = net.op("Add", y, net.weight(*((6, 5) if what == "by place" else (5,)), fan_in=1))
    z = net.relu(net.op("Add", z, y) if what == "read twice" else z)
    model = net.model(z, *([y] if what == "an output" else []))
    found = behind(model, "layer")
    assert (found.output, set(found.gain), set(found.shift)) == (y, {1.0}, {0.0})


# The Add behind a MatMul is its bias.


@pytest.mark.parametrize("shape", [(5,), (1, 1, 1, 5), (1,), ()], ids=str)
def test_a_matmul_with_an_add_gets_no_second_one(shape: tuple[int, ...]) -> None:
    net = Net(3, 6, 6)
    y = net.op("Transpose", net.conv("x", 3, 5), perm=[0, 2, 3, 1])
    y = net.op("MatMul", y, net.weight(5, 5, fan_in=5), name="layer")
    model = net.model(net.relu(net.op("Add", net.weight(*shape, fan_in=1, name="shared"), y)))
    model.graph.node.append(helper.make_node("Identity", ["shared"], ["too"]))
    model.graph.output.append(helper.make_tensor_value_info("too", TensorProto.FLOAT, shape))
    changed = shifted(model, y)
    assert [n.op_type for n in changed.graph.node] == [n.op_type for n in model.graph.node]


@pytest.mark.parametrize("why", ["by place", "an output", "data", "none"])
def test_where_no_add_can_take_it_one_is_put_in(why: str) -> None:
    net = Net(3, 6, 6)
    y = rows = net.op("Transpose", net.conv("x", 3, 5), perm=[0, 2, 3, 1])
    y = net.op("MatMul", y, net.weight(5, 5, fan_in=5), name="layer")
    other = {"by place": net.weight(6, 5, fan_in=1), "data": rows}.get(why, net.weight(5, fan_in=1))
    z = net.relu(y if why == "none" else net.op("Add", y, other))
    model = net.model(z, *([y] if why == "an output" else []))
    changed = shifted(model, y)
    assert len(changed.graph.node) == len(model.graph.node) + 1


def shifted(model: onnx.ModelProto, y: str) -> onnx.ModelProto:
    """The model with something added to a MatMul's outputs, which is checked by hand."""
    delta = BiasDelta(np.arange(1.0, 6.0), 0, TensorProto.FLOAT)
    changed = add_to_biases(model, {y: delta})
    onnx.checker.check_model(changed, full_check=True)
    feeds = feeds_for(model, analyse(model).facts.sizes)
    by_hand = onnx.ModelProto()
    by_hand.CopyFrom(model)
    node = next(n for n in by_hand.graph.node if y in n.output)
    at = list(by_hand.graph.node).index(node)
    node.output[0] = "raw"
    values = onnx.numpy_helper.from_array(np.arange(1, 6, dtype=np.float32), "values")
    by_hand.graph.initializer.append(values)
    by_hand.graph.node.insert(at + 1, helper.make_node("Add", ["raw", "values"], [y]))
    for want, got in zip(run(by_hand, feeds), run(changed, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    return changed
