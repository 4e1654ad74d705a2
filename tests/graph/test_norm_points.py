from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import onnx_esn
from onnx_esn.errors import VerificationError
from onnx_esn.graph.norms.points import final_layers, find_norm_points
from onnx_esn.graph.norms.probes import insert_probes
from onnx_esn.graph.norms.rewriting import ModelWriter
from tests.net import Net, feeds_for


def run(model, *names, sizes=None):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    feeds = feeds_for(model, sizes or {"x": (2, 6, 8, 8)})
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names) or None, feeds)


def copied(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def constant_weight(net, **attrs):
    """Conv whose weight is in a Constant node, read through Identity, and without a bias."""
    value = numpy_helper.from_array(net.rng.normal(size=(4, 6, 3, 3)).astype(np.float32))
    w = net.op("Identity", net.op("Constant", value=value))
    return net.op("Conv", "x", w, pads=[1, 1, 1, 1])


def gemm(net, c_shape=None, slot=1, **attrs):
    x = net.op("Flatten", net.op("GlobalAveragePool", "x"))
    shape = (5, 6) if slot == 1 and attrs.get("transB") else (6, 5)
    if slot == 0:
        shape, x = (5, 6), net.op("Transpose", x, perm=[1, 0])
    w = net.weight(*shape, fan_in=6)
    inputs = [x, w] if slot == 1 else [w, x]
    c = [] if c_shape is None else [net.vector(*c_shape)]
    return net.op("Gemm", *inputs, *c, **attrs)


def matmul_left(net):
    """The weight on the left: filters are rows."""
    y = net.op("MatMul", net.weight(5, 8, fan_in=8), "x")
    return net.op("Add", net.vector(5, 1), y)


LAYERS = {
    "conv": lambda net: net.conv("x", 6, 4),
    "conv without bias": lambda net: net.conv("x", 6, 4, bias=False),
    "grouped": lambda net: net.conv("x", 6, 4, group=2),
    "depthwise": lambda net: net.conv("x", 6, 6, group=6, bias=False),
    "constant node": constant_weight,
    "deconv": lambda net: net.deconv("x", 6, 4),
    "grouped deconv": lambda net: net.deconv("x", 6, 4, group=2, bias=False),
    "gemm": lambda net: gemm(net, (5,), transB=1),
    "gemm alpha beta": lambda net: gemm(net, (1, 5), alpha=0.5, beta=2.0),
    "gemm scalar bias": lambda net: gemm(net, (), transB=1, beta=0.5),
    "gemm without bias": lambda net: gemm(net, transB=1),
    "gemm rows": lambda net: gemm(net, (5, 1), slot=0),
    "gemm rows without bias": lambda net: gemm(net, slot=0),
    "linear": lambda net: net.linear("x", 8, 5),
    "linear with a table": lambda net: net.op(
        "Add", net.vector(8, 5), net.op("MatMul", "x", net.weight(8, 5, fan_in=8))
    ),
    "matmul left": matmul_left,
}


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_folding_equals_the_probe(build):
    net = Net(6, 8, 8)
    y = build(net)
    model = net.model(y, shapes={y: [None] * len(run(net.model(y, shapes={y: []}))[0].shape)})
    (point,) = find_norm_points(model).points
    before = model.SerializeToString()
    probed, handles = insert_probes(model, [point])
    handle = handles[point.output]
    values = [
        np.random.default_rng(i).uniform(0.5, 2, v.shape) for i, v in enumerate(handle.values)
    ]
    by_name = {t.name: t for t in probed.graph.initializer}
    for name, value in zip(handle.names, values, strict=True):
        by_name[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    writer = ModelWriter(copied(model))
    writer.fold(point, *values)
    writer.finish()
    onnx.checker.check_model(writer.model)
    assert model.SerializeToString() == before
    (want, raw), (got,) = run(probed, y, handle.tensor), run(writer.model)
    assert not np.allclose(want, raw)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert [n.op_type for n in writer.model.graph.node] == [n.op_type for n in model.graph.node]
    # The probe corrects what the handle says is measured.
    np.testing.assert_allclose(raw, run(model)[0], rtol=1e-6, atol=1e-6)
    assert any(handle.node in n.output and handle.tensor in n.input for n in probed.graph.node)


def test_what_is_a_point():
    net = Net(6, 8, 8)
    a = net.conv("x", 6, 4, name="before_bn")
    a = net.bn(a, 4, name="bn")
    b = net.conv(a, 4, 4, name="folded")
    c = net.conv(a, 4, 4, name="two_readers")
    d = net.op("Add", net.bn(c, 4, name="bn2"), net.op("Add", b, c))
    model = net.model(net.head(d, 4))
    found = find_norm_points(model)
    names = [p.name for p in found.points]
    assert names[:4] == ["bn", "folded", "two_readers", "bn2"]
    assert names[4].startswith("gemm")
    assert not found.skipped
    by_name = {p.name: p for p in found.points}
    assert by_name["bn"].behind == "before_bn"
    assert by_name["bn2"].behind == ""
    assert (by_name["bn"].tensor, by_name["bn"].channels) == ("before_bn_out", 4)
    assert final_layers(model, found.points) == {by_name[names[4]].output}
    assert final_layers(model, [by_name["folded"], by_name["bn"]]) == {"folded_out"}


def test_a_layer_at_an_output_and_before_batch_norm_is_a_point():
    net = Net(6, 8, 8)
    y = net.conv("x", 6, 4, name="conv")
    model = net.model(net.bn(y, 4), y)
    assert [p.op for p in find_norm_points(model).points] == ["Conv", "BatchNormalization"]


def test_what_is_skipped_and_why():
    net = Net(6, 8, 8)
    w = net.weight(6, 6, 3, 3, fan_in=54)
    y = net.op("Conv", "x", w, pads=[1, 1, 1, 1], name="shared_1")
    y = net.op("Conv", y, net.op("Identity", w), pads=[1, 1, 1, 1], name="shared_2")
    scaled = net.op("Mul", net.weight(6, 6, 1, 1, fan_in=6), net.vector(6, 1, 1, 1))
    y = net.op("Conv", y, scaled, name="computed")
    bias = net.op("Flatten", net.op("GlobalAveragePool", "x"))
    bias = net.op("ReduceMean", bias, axes=[0], keepdims=0)
    y = net.op("Conv", y, net.weight(6, 6, 1, 1, fan_in=6), bias, name="dynamic_bias")
    params = [net.vector(6, low=0.5) for _ in range(4)]
    training = net.op(
        "BatchNormalization", net.relu(y), *params, outputs=3, name="training", training_mode=1
    )[0]
    y = net.op("BatchNormalization", training, *[bias] * 4, name="dynamic")
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    y = net.op("Gemm", y, net.weight(6, 3, fan_in=6), net.vector(3), beta=0.0, name="no_beta")
    found = find_norm_points(net.model(y))
    assert not found.points
    assert {name: reason.split(" the ")[0] for name, reason in found.skipped} == {
        "shared_1": "its weight is shared with another node",
        "shared_2": "its weight is shared with another node",
        "computed": "its weight is computed in",
        "dynamic_bias": "its bias is computed from",
        "training": "BatchNormalization in training mode has no running statistics to correct",
        "dynamic": "its parameters are computed from",
        "no_beta": "its beta of 0 leaves no place for a bias",
    }


def test_layers_in_subgraphs_and_functions_are_named():
    net = Net(6, 8, 8)
    inner = Net()
    z = inner.op("Conv", "x", "w", name="inner_conv")
    out = helper.make_tensor_value_info(z, onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(inner.nodes, "then", [], [out])
    net.store(net.rng.normal(size=(4, 6, 1, 1)), "w")
    condition = net.store(np.array(True))
    y = net.op("If", condition, then_branch=graph, else_branch=graph, name="choice")
    node = helper.make_node("Conv", ["a", "b"], ["c"], name="function_conv")
    opset = [helper.make_opsetid("", 17)]
    net.functions.append(helper.make_function("own", "F", ["a", "b"], ["c"], [node], opset))
    net.domains["own"] = 1
    y = net.op("F", y, net.store(net.rng.normal(size=(4, 4, 1, 1))), domain="own")
    found = find_norm_points(net.model(y, shapes={y: ["N", 4, 8, 8]}))
    reasons = dict(found.skipped)
    assert "subgraph of If 'choice'" in reasons["inner_conv"]
    assert "local function" in reasons["function_conv"]


def test_tied_statistics_become_their_own():
    net = Net(6, 8, 8)
    zero, one = net.store(np.zeros(6), "zero"), net.store(np.ones(6), "one")
    same = net.op("Identity", zero)
    y = net.op("BatchNormalization", "x", one, zero, zero, one, name="a")
    y = net.op("BatchNormalization", net.relu(y), one, zero, same, one, name="b")
    own = [net.store(np.full(6, v), n) for v, n in ((0.5, "mean"), (2.0, "var"))]
    y = net.op("BatchNormalization", net.relu(y), one, zero, *own, name="c")
    model = net.model(y)
    points = find_norm_points(model).points
    writer = ModelWriter(copied(model))
    writer.own_statistics(points)
    np.testing.assert_array_equal(run(writer.model)[0], run(model)[0])
    for i, point in enumerate(points):
        writer.set_statistics(point, np.full(6, i, np.float32), np.full(6, i + 1, np.float32))
    writer.finish()
    onnx.checker.check_model(writer.model)
    values = {t.name: numpy_helper.to_array(t)[0] for t in writer.model.graph.initializer}
    nodes = {n.name: n for n in writer.model.graph.node}
    assert [[values[i] for i in nodes[k].input[1:]] for k in "abc"] == [
        [1, 0, 0, 1], [1, 0, 1, 2], [1, 0, 2, 3],
    ]  # fmt: skip
    assert list(nodes["c"].input[3:]) == ["mean", "var"]
    # What nothing reads any more is gone, what others read is not.
    assert "Identity" not in {n.op_type for n in writer.model.graph.node}
    assert values["zero"] == 0


def test_a_tied_bias_is_untied():
    net = Net(6, 8, 8)
    zero = net.store(np.zeros(6), "zero")
    weights = [net.weight(6, 6, 1, 1, fan_in=6) for _ in range(2)]
    y = net.op("Conv", "x", weights[0], zero, name="a")
    y = net.op("Conv", net.relu(y), weights[1], zero, name="b")
    model = net.model(y)
    writer = ModelWriter(copied(model))
    for i, point in enumerate(find_norm_points(model).points):
        writer.fold(point, np.ones(6), np.full(6, i + 1.0))
    writer.finish()
    values = {t.name: numpy_helper.to_array(t) for t in writer.model.graph.initializer}
    nodes = {n.name: n for n in writer.model.graph.node}
    assert [values[nodes[k].input[2]][0] for k in "ab"] == [1, 2]
    onnx.checker.check_model(writer.model)


@pytest.mark.parametrize("ir", [3, 8, 10])
def test_only_stored_tensors_change(ir):
    net = Net(6, 8, 8, ir=ir, opset=13)
    y = net.bn(net.conv("x", 6, 6, bias=False), 6)
    y = net.conv(net.relu(y), 6, 4, bias=False, name="last")
    model = net.model(y)
    model.graph.initializer[0].doc_string = "kept"
    writer = ModelWriter(copied(model))
    points = find_norm_points(model).points
    writer.own_statistics(points)
    writer.set_statistics(points[0], np.zeros(6, np.float32), np.ones(6, np.float32))
    writer.fold(points[1], np.ones(4), np.ones(4))
    writer.finish()
    onnx.checker.check_model(writer.model)
    run(writer.model)
    after = copied(writer.model)
    assert after.graph.node[-1].input[2] == "last.bias"
    assert ("last.bias" in {i.name for i in after.graph.input}) == (ir == 3)
    del after.graph.node[-1].input[2]
    kept = {t.name for t in model.graph.initializer}
    for entries in (after.graph.initializer, after.graph.input):
        for entry in [e for e in entries if e.name == "last.bias"]:
            entries.remove(entry)
    assert {t.name for t in after.graph.initializer} == kept
    assert after.graph.initializer[0].doc_string == "kept"
    for m in (after, model):
        del m.graph.initializer[:]
    assert after == model


def test_overflow_in_the_type_of_the_weight():
    net = Net(6, 8, 8, dtype=np.float16)
    model = net.model(net.conv("x", 6, 4, name="conv"))
    (point,) = find_norm_points(model).points
    with pytest.raises(VerificationError, match=r"Conv 'conv'.*not finite in float16"):
        ModelWriter(copied(model)).fold(point, np.full(4, 1e6), np.zeros(4))


def learned_map(norm=False):
    """A layer that reads weights instead of data, added to one that reads the data."""
    net = Net(6, 8, 8)
    fixed = net.conv(net.store(net.rng.normal(size=(1, 6, 8, 8))), 6, 4, k=1, name="fixed")
    if norm:
        fixed = net.bn(fixed, 4)
    x = net.op("Relu", net.op("Add", net.conv("x", 6, 4), fixed))
    return net.model(net.conv(x, 4, 5, k=1))


@pytest.mark.parametrize("norm", [False, True])
def test_what_the_data_does_not_reach_is_no_point(norm):
    model = learned_map(norm)
    found = find_norm_points(model)
    assert len(found.points) == 2
    assert "its input is constant" in {reason for _, reason in found.skipped}


@pytest.mark.parametrize("budget", [{"bits": 4}, {"target_cost": "20%"}])
def test_such_a_layer_is_rounded_to_nearest(budget):
    """The others are compensated, and what follows from the one that is not does not fail."""
    model = learned_map()
    images = np.random.default_rng(0).normal(size=(12, 6, 8, 8)).astype(np.float32)
    done = onnx_esn.quantize(model, images=images, **budget)
    assert done.details["compensated_layers"] == 2
    assert {max(x.filter_bits) <= 8 for x in onnx_esn.inspect(done.model).layers} == {True}
    small = onnx_esn.compress(model, images, latency=False, **budget)
    assert small.evaluation is not None
