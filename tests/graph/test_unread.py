"""What a change of the graph leaves without a reader goes; everything else stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_esn.graph.standard_form import standard_form
from onnx_esn.graph.unread import drop_unread, reads
from onnx_esn.passes.pruning.prune import Prune
from tests.net import Net, feeds_for
from tests.oracles.equivalence import relative_difference, run


def standardized(**options) -> onnx.ModelProto:
    """The first convolution's weight is computed at each run; a dead node stands beside it."""
    net = Net(3, 6, 6, **options)
    w = net.weight(16, 3, 3, 3, fan_in=27, name="w")
    rows = net.op("Reshape", w, net.ints(1, 16, -1))
    one, zero = net.store(np.ones(16), name="gain"), net.store(np.zeros(16))
    mean = net.op("ReduceMean", rows, axes=[0, 2], keepdims=0)
    rows = net.op("BatchNormalization", rows, one, zero, mean, one)
    w = net.op("Reshape", rows, net.op("Shape", w))
    net.op("Mul", "x", net.store(np.array(2.0), name="dead from the start"))
    x = net.relu(net.op("Conv", "x", w, name="a", kernel_shape=[3, 3], pads=[1] * 4))
    return net.model(net.head(net.conv(x, 16, 8, name="b"), 8))


def branching() -> onnx.ModelProto:
    """An If that always takes its first branch; the second one reads a weight of the graph."""
    net = Net(3, 6, 6)
    stays, goes = (net.weight(8, 3, 3, 3, fan_in=27, name=n) for n in ("stays", "goes"))
    rank = net.op("Size", net.op("Shape", "x"))
    test = net.op("Equal", rank, net.store(np.array(4), name="four"))
    attributes = {"kernel_shape": [3, 3], "pads": [1] * 4}
    bodies = [
        helper.make_graph(
            [helper.make_node("Conv", ["x", w], [f"{w}_y"], w, **attributes)],
            w,
            [],
            [helper.make_tensor_value_info(f"{w}_y", TensorProto.FLOAT, None)],
        )
        for w in (stays, goes)
    ]
    y = net.op("If", test, then_branch=bodies[0], else_branch=bodies[1])
    return net.model(net.head(net.relu(y), 8))


def unread(model: onnx.ModelProto) -> set[str]:
    used = reads(model)
    made = [o for n in model.graph.node for o in n.output]
    return {x for x in [*made, *(t.name for t in model.graph.initializer)] if not used[x]}


@pytest.mark.parametrize(
    ("build", "gone"),
    [
        (standardized, {"w", "gain"}),
        (lambda: standardized(ir=3), {"w", "gain"}),
        (branching, {"goes", "four"}),
    ],
    ids=["computed", "computed, inputs", "branch"],
)
def test_a_pruned_model_keeps_no_weight_that_lost_its_reader(build, gone):
    model = build()
    before = model.SerializeToString()
    for made in (standard_form(model), Prune(ratio=0.5, absorb="none")(model).model):
        assert unread(made) == unread(model)
        names = {x.name for x in (*made.graph.initializer, *made.graph.input)}
        assert not names & gone
        onnx.checker.check_model(made, full_check=True)
    assert model.SerializeToString() == before
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    assert relative_difference(run(model, feeds), run(standard_form(model), feeds)) < 1e-5


def test_a_computed_weight_with_another_reader_stays():
    model = standardized()
    conv = next(n for n in model.graph.node if n.name == "a")
    model.graph.output.append(
        helper.make_tensor_value_info(conv.input[1], TensorProto.FLOAT, [16, 3, 3, 3])
    )
    made = standard_form(model)
    assert {"w", "gain"} <= {t.name for t in made.graph.initializer}
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    assert relative_difference(run(model, feeds), run(made, feeds)) < 1e-5


def test_an_input_that_lost_its_reader_is_still_one():
    net = Net(3, 6, 6)
    extra = net.input("extra", "N", 1)
    model = net.model(net.head(net.op("Add", net.conv("x", 3, 8), extra), 8))
    before = set(reads(model))
    add = next(n for n in model.graph.node if n.op_type == "Add")
    add.input[1] = add.input[0]
    drop_unread(model, before)
    assert [i.name for i in model.graph.input] == ["x", "extra"]
