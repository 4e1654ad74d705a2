"""Outputs that jump, and what they are judged by."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_esn import compress
from onnx_esn.calibration import Session, open_set
from onnx_esn.calibration.tensor_spec import input_specs
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.judged_tensors import judged_beside, judged_tensors
from onnx_esn.passes.correcting.output_divergence import output_divergences
from onnx_esn.passes.quantizing.compensated import CompensatedQuantization
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import sizes_of

# Tensors in the place of outputs, where some are replaced.
REPLACED = {
    "non_maximum_suppression": ["sigmoid_8_out", "sigmoid_12_out"],
    "fully_convolutional_net": ["resize_15_out", "conv_16_out"],
    "positions_of_non_zeros": ["gemm_9_out", "relu_2_out"],
    "unique_values": ["gemm_10_out", "round_3_out"],
    "indices_of_maxima_as_an_output": ["gemm_12_out", "relu_2_out"],
    "compressed_pixels": ["relu_2_out"],
    "shapes_unknown_from_here": ["gemm_15_out", "relu_2_out"],
    "reshaped_behind_an_unknown_size": ["gemm_16_out", "relu_2_out"],
    "one_size_only_behind_a_count": ["gemm_12_out"],  # the other is made of the input alone
    "channel_argmax_of_a_consumer": ["conv_3_out"],
}


@pytest.mark.parametrize("name", MODELS)
def test_only_outputs_that_jump_are_replaced(name):
    model = MODELS[name].build()
    outputs = [x.name for x in model.graph.output]
    assert judged_tensors(model) == REPLACED.get(name, outputs)


@pytest.mark.parametrize("name", REPLACED)
def test_what_is_judged_are_floats_of_one_shape(name):
    model = MODELS[name].build()
    names = judged_tensors(model)
    assert judged_beside(model, names) is names
    session = Session(model, outputs=names)
    rng = np.random.default_rng(0)
    feeds = feeds_for(model, sizes_of(model))
    found = []
    for scale in (1.0, 0.1, -3.0):
        other = {k: scale * rng.normal(size=v.shape) for k, v in feeds.items()}
        found.append(session.run({k: x.astype(feeds[k].dtype) for k, x in other.items()}))
    for tensor in names:
        assert {x[tensor].dtype.kind for x in found} == {"f"}
        assert len({x[tensor].shape for x in found}) == 1


def test_labels_can_stay():
    model = MODELS["fully_convolutional_net"].build()
    assert judged_tensors(model, labels=False) == [x.name for x in model.graph.output]
    model = MODELS["non_maximum_suppression"].build()
    assert judged_tensors(model, labels=False) == REPLACED["non_maximum_suppression"]


def test_counts_of_shapes_and_constants_jump_nowhere():
    """NonZero of a shape is the same for all images."""
    net = Net(3, 6, 6, batch=2)
    y = net.relu(net.conv("x", 3, 4, name="a"))
    rows = net.op("Cast", net.op("Shape", y), to=onnx.TensorProto.FLOAT)
    index = net.op("Squeeze", net.op("NonZero", rows), net.ints(0))
    picked = net.op("Gather", y, net.op("Slice", index, net.ints(0), net.ints(2)), axis=2)
    model = net.model(net.op("GlobalAveragePool", picked), picked)
    assert judged_tensors(model) == [x.name for x in model.graph.output]


def decoder(*, by_values=True):
    """A network that reads out one row after another until it has seen enough."""
    net = Net(3, 8, 8)
    features = net.relu(net.conv(net.relu(net.conv("x", 3, 24, name="a")), 24, 8, name="b"))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", features))  # (N, 8)
    step = [helper.make_node("ReduceMax", [pooled], ["step"], keepdims=0)]
    if not by_values:
        step = [helper.make_node("Constant", [], ["step"], value_float=0.4)]
    body = helper.make_graph(
        [
            *step,
            helper.make_node("Add", ["sum_in", "step"], ["sum_out"]),
            helper.make_node("Less", ["sum_out", "enough"], ["more"]),
            helper.make_node("Mul", [pooled, "sum_in"], ["row"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("row", TensorProto.FLOAT, None),
        ],
    )
    net.store(np.float32(4.0), "enough")
    most = net.store(np.int64(64), "most")
    begin = net.store(np.float32(0.5), "begin")
    _, rows = net.op("Loop", most, "", begin, outputs=2, body=body)
    y = net.op("Transpose", rows, perm=[1, 0, 2])
    return net.model(y, shapes={y: ["N", "steps", 8]})


def test_what_a_loop_reads_is_judged_where_values_end_it():
    model = decoder()
    (judged,) = judged_tensors(model)
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    assert judged in captured(loop)
    lengths = set()
    feeds = feeds_for(model, {"x": (2, 3, 8, 8)})
    for loudness in (0.2, 1.0, 5.0):
        louder = {name: np.float32(loudness) * x for name, x in feeds.items()}
        lengths.add(Session(model).run(louder)[model.graph.output[0].name].shape[1])
    assert len(lengths) > 1


def test_a_loop_that_runs_as_often_for_all_images_is_judged_by_its_output():
    model = decoder(by_values=False)
    assert judged_tensors(model) == [model.graph.output[0].name]


def refiner(*, grows=False):
    """A network that goes over its features as often as the image says; they may grow by that."""
    net = Net(3, 8, 8)
    features = net.relu(net.conv("x", 3, 6, name="a"))
    W = net.weight(6, 6, 3, 3, fan_in=54, name="inner.weight")
    turns = net.op("Cast", net.op("ReduceMax", "x", keepdims=0), to=TensorProto.INT64)
    most = net.op("Add", turns, net.store(np.int64(1)))
    body = helper.make_graph(
        [
            helper.make_node("Conv", ["y_in", W], ["z"], "inner", pads=[1] * 4),
            helper.make_node("Tanh", ["z"], ["t"]),
            helper.make_node("Concat", ["y_in", "t"], ["y_out"], axis=2)
            if grows
            else helper.make_node("Add", ["y_in", "t"], ["y_out"]),
            helper.make_node("Identity", ["go"], ["more"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y_out", TensorProto.FLOAT, None),
        ],
    )
    y = net.conv(net.op("Loop", most, "", features, body=body), 6, 4, 1, name="last")
    return net.model(y, shapes={y: ["N", 4, "height", "width"]})


def cropping():
    """A network that looks at as many rows of its features as the image says."""
    net = Net(3, 8, 8)
    features = net.relu(net.conv("x", 3, 6, name="a"))
    rows = net.op("Cast", net.op("ReduceMax", "x", keepdims=0), to=TensorProto.INT64)
    end = net.op("Reshape", net.op("Add", rows, net.store(np.int64(1))), net.ints(1))
    cropped = net.op("Slice", features, net.ints(0), end, net.ints(2))
    y = net.conv(cropped, 6, 4, 1, name="last")
    return net.model(y, shapes={y: ["N", 4, "rows", 8]})


def test_turns_that_keep_a_shape_may_be_as_many_as_values_say():
    model = refiner()
    assert judged_tensors(model) == [model.graph.output[0].name]
    growing = refiner(grows=True)
    assert growing.graph.output[0].name not in judged_tensors(growing)


@pytest.mark.parametrize("build", [decoder, refiner, lambda: refiner(grows=True), cropping])
def test_a_pruned_model_is_judged_by_the_same(build):
    """What stands for an output is as wide as before, or there would be nothing to compare."""
    model = build()
    x = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    done = compress(model, x, ratio=0.5, bits=6, eval_images=x, latency=False)
    assert done.evaluation.models[1].agreement is not None
    (found,) = output_divergences(model, [done.model], open_set(x, input_specs(model)))
    assert np.isfinite(found)


@pytest.mark.parametrize(
    ("op", "before", "after"),
    [
        ("Slice", ["zero", "count"], ["one"]),
        ("TopK", ["count"], []),
        ("Pad", ["pads"], []),
        ("Tile", ["repeats"], []),
    ],
)
def test_a_size_made_of_values_jumps(op, before, after):
    net = Net(3, 6, 6)
    features = net.op("GlobalAveragePool", net.relu(net.conv("x", 3, 5)))
    rows = net.op("Flatten", features)
    best = net.op("ReduceMax", net.op("ArgMax", rows, axis=1, keepdims=0), keepdims=0)
    count = net.op("Reshape", net.op("Add", best, net.store(np.int64(1))), net.ints(1))
    names = {
        "count": count,
        "zero": net.ints(0),
        "one": net.ints(1),
        "pads": net.op("Concat", net.ints(0, 0, 0), count, axis=0),
        "repeats": net.op("Concat", net.ints(1), count, axis=0),
    }
    made = net.op(op, rows, *(names[n] for n in (*before, *after)), outputs=1 + (op == "TopK"))
    y = made[0] if op == "TopK" else made
    model = net.model(y, shapes={y: ["N", "found"]})
    assert judged_tensors(model) == [rows]


def test_a_budget_is_met_where_a_loop_ends_by_values():
    model = decoder()
    data = np.random.default_rng(0).normal(size=(24, 3, 8, 8)).astype(np.float32)
    images = open_set({"x": data}, input_specs(model))
    found = CompensatedQuantization(images, target_cost="5%", prune=True)(model)
    assert all(0 < t["divergence"] < np.inf for t in found.details["trials"])


@pytest.mark.parametrize("name", ["non_maximum_suppression", "fully_convolutional_net"])
def test_a_budget_is_met_where_outputs_jump(name):
    model = MODELS[name].build()
    rng = np.random.default_rng(0)
    feeds = feeds_for(model, sizes_of(model))
    data = {k: rng.normal(size=(20, *v.shape[1:])).astype(v.dtype) for k, v in feeds.items()}
    images = open_set(data, input_specs(model))
    step = CompensatedQuantization(images, target_cost="12%", prune=True)
    found = step(model)
    trials = found.details["trials"]
    assert all(0 < t["divergence"] < np.inf for t in trials)
