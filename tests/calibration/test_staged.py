from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_esn.calibration import input_specs, open_set
from onnx_esn.calibration import kept_batches as kept
from onnx_esn.calibration.point_moments import Point
from onnx_esn.calibration.row_sums import fast_moments
from onnx_esn.calibration.stage_graph import StageGraph
from onnx_esn.calibration.staged import measure_in_stages
from onnx_esn.calibration.streamed import stream_moments
from onnx_esn.calibration.tensor_store import TensorStore
from onnx_esn.errors import InferenceError, OperationError, OptionError, VerificationError
from onnx_esn.numerics.moments import channel_moments
from tests.net import Net
from tests.oracles.batch_norm import training_statistics

IMAGES = np.random.default_rng(7).normal(0.3, 1.2, (23, 3, 8, 8)).astype(np.float32)


def points_of(model):
    return [
        Point(node.name, node.input[0], 1, node.output[0])
        for node in model.graph.node
        if node.op_type == "BatchNormalization"
    ]


def reestimate(model, images=IMAGES, points=None, **options):
    """Statistics by node name, with every BatchNormalization set to them on the way."""
    nodes = {node.output[0]: node for node in model.graph.node}

    def update(point, moments):
        node = nodes[point.node]
        values = moments.mean.astype(np.float32), moments.variance.astype(np.float32)
        return dict(zip(node.input[3:5], values, strict=True))

    dataset = open_set(images, input_specs(model))
    points = points or points_of(model)
    found = measure_in_stages(model, points, dataset, update, **options)
    return {p.name: (found[p.node].mean, found[p.node].variance) for p in points}


def assert_same(one, other, rtol=1e-5):
    assert one.keys() == other.keys()
    for name, (mean, var) in one.items():
        scale = np.sqrt(var.max()) + 1e-12
        np.testing.assert_allclose(mean, other[name][0], rtol=0, atol=rtol * scale)
        np.testing.assert_allclose(var, other[name][1], rtol=rtol, atol=rtol * var.max())


def chain():
    net = Net(3, 8, 8)
    y = net.conv_bn_relu(net.conv_bn_relu("x", 3, 6), 6, 4, strides=[2, 2])
    return net.model(net.head(net.conv_bn_relu(y, 4, 8), 8))


def residual():
    net = Net(3, 8, 8, seed=1)
    y = net.conv_bn_relu("x", 3, 4)
    z = net.bn(net.conv(net.conv_bn_relu(y, 4, 4), 4, 4, bias=False), 4)
    y = net.relu(net.op("Add", z, y))
    z = net.bn(net.conv(net.conv_bn_relu(y, 4, 6, strides=[2, 2]), 6, 6), 6)
    short = net.bn(net.conv(y, 4, 6, 1, strides=[2, 2]), 6)
    return net.model(net.head(net.relu(net.op("Add", z, short)), 6))


def dense():
    """BatchNormalization reads concatenations, one tensor is read by two of them."""
    net = Net(3, 8, 8, seed=2)
    y = net.bn("x", 3)
    for c in (3, 5, 7):
        y = net.op("Concat", y, net.conv(net.relu(net.bn(y, c)), c, 2), axis=1)
    y = net.op("Add", net.bn(y, 9), net.relu(net.bn(y, 9)))
    return net.model(net.head(y, 9))


def separable():
    net = Net(3, 8, 8, seed=3)
    y = net.conv_bn_relu("x", 3, 6)
    y = net.conv_bn_relu(y, 6, 6, group=6)
    y = net.conv_bn_relu(y, 6, 8, 1, group=2)
    y = net.bn(net.deconv(y, 8, 4), 4)
    return net.model(net.op("Sigmoid", net.conv(y, 4, 2)))


def shape_arithmetic():
    """The batch, computed before a stage, shapes a tensor after it; a shortcut spans stages."""
    net = Net(3, 8, 8, seed=4)
    batch = net.size("x", 0)
    y = net.conv_bn_relu("x", 3, 4)
    y = net.conv_bn_relu(net.reshape_computed(y, batch, 4, 4, 16), 4, 4)
    y = net.bn(net.op("Concat", net.reshape_computed(y, batch, 4, 8, 8), "x", axis=1), 7)
    return net.model(net.head(y, 7))


MODELS = {f.__name__: f for f in (chain, residual, dense, separable, shape_arithmetic)}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_equals_one_training_batch_of_all_images(build):
    model = build()
    assert_same(reestimate(model, batch_size=5), training_statistics(model, {"x": IMAGES}))


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_does_not_depend_on_the_batch_size(build):
    model = build()
    whole = reestimate(model, batch_size=len(IMAGES))
    for size in (1, 7, 64):
        assert_same(reestimate(model, batch_size=size), whole)


@pytest.mark.parametrize("rerun", [1, 3, 99])
@pytest.mark.parametrize("reserve", [0, None], ids=["files", "no files"])
def test_memory_limit_changes_only_the_way(reserve, rerun, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(kept, "RERUN", rerun)
    monkeypatch.setattr(kept, "GROWTH", 0.0)
    monkeypatch.setattr("onnx_esn.temporary.process_folder", lambda: tmp_path)
    caplog.set_level(logging.DEBUG, "onnx_esn.calibration.staged")
    for build in (residual, shape_arithmetic):
        model = build()
        # 64 times a sample keeps some batches in memory, and the rest in files or nowhere.
        for limit in (0, 3 * 8 * 8 * 4 * 64):
            found = reestimate(model, batch_size=4, memory_limit=limit, disk_reserve=reserve)
            assert_same(found, reestimate(model), 1e-5)
            assert not list(tmp_path.iterdir())
    written = [r.args[1] for r in caplog.records if r.msg.startswith("%d stages")]
    assert any(written) == (reserve == 0)


@pytest.mark.parametrize(("growth", "most"), [(kept.GROWTH, 4), (0.0, 8)])
def test_values_are_held_until_no_stage_reads_them_again(monkeypatch, growth, most):
    """They may be the weights of a model: those of the stages that begin further on are let go."""
    held = []
    stage = StageGraph.stage

    def spy(graph, base, outputs, specs, values):
        held.append(len(values))
        return stage(graph, base, outputs, specs, values)

    net = Net(3, 8, 8)
    y = "x"
    for before, after in pairwise((3, 4, 4, 4, 4, 4, 4)):
        y = net.conv_bn_relu(y, before, after)
    model = net.model(net.head(y, 4))
    wanted = training_statistics(model, {"x": IMAGES})
    monkeypatch.setattr(StageGraph, "stage", spy)
    monkeypatch.setattr(kept, "GROWTH", growth)
    monkeypatch.setattr(kept, "SHARE", 0.0)
    monkeypatch.setattr(kept, "RERUN", 4)
    assert_same(reestimate(model), wanted)
    assert max(held) <= most


def test_a_full_disk_is_a_reason_to_compute_again(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    model = chain()
    assert_same(reestimate(model, memory_limit=0), training_statistics(model, {"x": IMAGES}))


def test_each_node_sees_each_image_once_where_there_is_room():
    runs = []
    model = chain()
    reestimate(model, progress=lambda done, total: runs.append((done, total)))
    assert runs == [(1, 3), (2, 3), (3, 3)]


def test_nodes_after_the_last_point_do_not_run():
    net = Net(3, 8, 8)
    y = net.conv_bn_relu("x", 3, 4)
    y = net.op("Reshape", y, net.ints(5, 7, 11))  # fails for any batch
    found = reestimate(net.model(y, shapes={y: [5, 7, 11]}))
    assert len(found) == 1


def test_a_subgraph_reads_across_stages():
    net = Net(3, 8, 8)
    early = net.relu(net.conv("x", 3, 4))
    y = net.conv_bn_relu("x", 3, 4)

    def branch(op):
        node = helper.make_node(op, [y, early], [f"{op}_out"])
        out = helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)
        return helper.make_graph([node], op, [], [out])

    condition = net.op("Greater", net.op("ReduceMax", "x", keepdims=0), net.store(np.float32(-1e9)))
    y = net.op("If", condition, then_branch=branch("Add"), else_branch=branch("Sub"))
    y = net.bn(net.conv(y, 4, 4), 4)
    model = net.model(y, shapes={y: ["N", 4, 8, 8]})
    assert_same(reestimate(model, batch_size=6), training_statistics(model, {"x": IMAGES}))


def test_sequences_between_stages_are_computed_again():
    net = Net(3, 8, 8)
    parts = net.op("SplitToSequence", "x", net.store(np.array(1, np.int64)), axis=1)
    y = net.conv_bn_relu("x", 3, 3)
    y = net.op("Add", y, net.op("ConcatFromSequence", parts, axis=1))
    model = net.model(net.bn(y, 3), shapes={net.nodes[-1].output[0]: ["N", 3, 8, 8]})
    assert_same(reestimate(model, batch_size=6), training_statistics(model, {"x": IMAGES}))


def test_nan_names_the_layer():
    net = Net(3, 8, 8)
    y = net.conv_bn_relu("x", 3, 4)
    y = net.bn(net.op("Log", net.op("Neg", y), name="log"), 4)
    with pytest.raises(VerificationError, match=r"batchnormalization_5.*'log_out'.*not finite"):
        reestimate(net.model(y))


def test_a_correction_that_overflows_names_the_layer():
    model = chain()
    dataset = open_set(IMAGES, input_specs(model))
    with pytest.raises(VerificationError, match=r"batchnormalization_1.*not finite in float16"):
        measure_in_stages(
            model, points_of(model), dataset, lambda *_: {"t1": np.array([np.inf], np.float16)}
        )


def test_padding_of_a_fixed_batch_does_not_count():
    free, fixed = chain(), chain()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    assert_same(reestimate(fixed), reestimate(free, batch_size=4))


def test_padding_that_is_not_on_the_first_axis_is_refused():
    for permutation, shape in (([2, 1, 0, 3], "8"), ([1, 0, 2, 3], "3")):
        net = Net(3, 8, 8, batch=4)
        y = net.op("Transpose", net.conv("x", 3, 3), perm=permutation)
        y = net.bn(y, 4 if permutation[0] == 1 else 3)
        model = net.model(y, shapes={y: [None] * 4})
        with pytest.raises(OperationError, match=rf"shape \({shape}, .*fixed batch of 4"):
            reestimate(model, IMAGES[:7])
        assert reestimate(model, IMAGES[:8])


def test_points_that_cannot_be_measured():
    model = chain()
    dataset = open_set(IMAGES, input_specs(model))
    with pytest.raises(OperationError, match="no node"):
        measure_in_stages(model, [Point("a", "conv_0_out", 1, "nowhere")], dataset)
    with pytest.raises(OperationError, match="'a' does not depend"):
        measure_in_stages(model, [Point("a", "t0", 1, "conv_0_out")], dataset)
    with pytest.raises(OperationError, match="no channel axis 7"):
        measure_in_stages(model, [Point("a", "conv_0_out", 7, "relu_2_out")], dataset)
    with pytest.raises(OptionError, match="batch size 0"):
        measure_in_stages(model, points_of(model), dataset, batch_size=0)


def test_a_model_that_does_not_run_is_an_inference_error():
    net = Net(3, 8, 8)
    y = net.bn(net.reshape("x", 5, 7, 11), 7)
    with pytest.raises(InferenceError, match="cannot run"):
        reestimate(net.model(y))


def test_streaming_equals_staging_without_corrections():
    model = residual()
    points = [*points_of(model), Point("input", "x", -1, "relu_2_out")]
    dataset = open_set(IMAGES, input_specs(model))
    staged = measure_in_stages(model, points_of(model), dataset)
    done = []
    streamed = stream_moments(
        model, points, dataset, memory_limit=100_000, progress=lambda *a: done.append(a)
    )
    assert done[-1] == (23, 23)
    assert len(done) > 3  # small batches, for the limit's sake
    for key, moments in staged.items():
        np.testing.assert_allclose(moments.mean, streamed[key].mean, atol=1e-6)
        np.testing.assert_allclose(moments.variance, streamed[key].variance, rtol=1e-5)
        assert moments.count == streamed[key].count
    assert streamed["relu_2_out"].mean.shape == (8,)


@pytest.mark.parametrize("shape", [(5, 7, 12, 12), (3, 4, 112, 112), (2, 3, 4, 4, 4), (2, 3, 9973)])
def test_fast_moments_are_the_slow_ones(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    flat = [1] * (len(shape) - 2)
    x = x * rng.uniform(1e-3, 10, (shape[1], *flat)) + rng.normal(size=(shape[1], *flat))
    x = x.astype(np.float32)
    x[:, 0] = 3.25  # collapsed
    x[:, 1] += np.float32(1000)
    x[:, 2] *= np.float32(1e-20)
    fast, slow = fast_moments(x), channel_moments(x)
    np.testing.assert_allclose(fast.variance, slow.variance, rtol=1e-5)
    assert (np.abs(fast.mean - slow.mean) <= 1e-5 * (slow.std + 1e-6 * np.abs(slow.mean))).all()
    assert fast.variance[0] == 0
    x[-1, 2, 0] = np.inf
    with pytest.raises(VerificationError):
        fast_moments(x)


def test_store_is_all_or_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("onnx_esn.temporary.process_folder", lambda: tmp_path)
    a, b = np.zeros(10, np.float32), np.ones((2, 3), np.float32)
    with TensorStore(60, None) as store:
        assert not store.put(0, {"a": a, "b": b})
        assert store.put(0, {"a": a})
        assert not store.put(1, {"b": b})
        store.drop(0, ["a", "unknown"])
        assert store.put(1, {"b": b})
        assert not store.put(1, {"words": np.array(["x"], object)})
        assert not store.put(1, {"sequence": [b]})
    with TensorStore(0, 0) as store:
        assert store.put(0, {"a": a, "b": b})
        assert store.put(1, {"a": a[:5], "b": b[0]})
        assert len(list(tmp_path.rglob("*.npy"))) == 4
        np.testing.assert_array_equal(store.get(0, "b"), b)
        assert store.spec("a").shape == (None,)
        assert store.spec("b").shape == ()
        store.drop(0, ["a"])
        assert len(list(tmp_path.rglob("*.npy"))) == 3
    assert not list(tmp_path.iterdir())


def test_ir_3_models_are_measured():
    net = Net(3, 8, 8, ir=3, opset=11)
    model = net.model(net.head(net.conv_bn_relu(net.conv_bn_relu("x", 3, 4), 4, 4), 4))
    onnx.checker.check_model(model)
    modern = Net(3, 8, 8)
    y = modern.conv_bn_relu(modern.conv_bn_relu("x", 3, 4), 4, 4)
    assert_same(reestimate(model), reestimate(modern.model(modern.head(y, 4))))
