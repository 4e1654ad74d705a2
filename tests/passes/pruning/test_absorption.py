"""What removed channels still sent to their consumers goes into biases."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from onnx_esn.graph.channels.groups import analyse
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.window import tap_coverage
from onnx_esn.passes.pruning.absorption import fold_constants
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.pruning.replay import planned_removal
from onnx_esn.passes.pruning.zero_filters import RemoveZeroFilters
from onnx_esn.plans import PruningPlan, SliceEntry
from onnx_esn.verbs import quantize
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import relative_difference, rewrite_or_lock, run, sizes_of


def silence(model, weight, rows, axis=0):
    """Set filters of a weight to zero: what they emit is their bias."""
    tensor = next(t for t in model.graph.initializer if t.name == weight)
    W = numpy_helper.to_array(tensor).copy()
    W[(slice(None),) * axis + (rows,)] = 0
    tensor.CopyFrom(numpy_helper.from_array(W, weight))
    return model


def drop(model, rows, absorb, weight="a.weight", axis=0):
    """Remove filters by a plan; the constants are those that Prune folds for them."""
    analysis = analyse(model)
    plan = PruningPlan((SliceEntry(weight, axis, tuple(rows)),))
    removed = planned_removal(analysis, plan)
    folded, skipped = fold_constants(analysis, removed, absorb)
    plan = PruningPlan(plan.slices, (), folded)
    return Prune(plan=plan)(model).model, skipped


# Exactly constant channels, one consumer of each kind. `a` makes 8 channels of 6 × 6 pixels.

CONSUMERS = {
    "conv": lambda net, y: net.conv(y, 8, 5, pads=[0] * 4),
    "conv without bias": lambda net, y: net.conv(y, 8, 5, bias=False, pads=[0] * 4),
    "strided": lambda net, y: net.conv(y, 8, 5, pads=[0] * 4, strides=[2, 2], dilations=[2, 2]),
    "grouped": lambda net, y: net.conv(y, 8, 6, group=2, pads=[0] * 4),
    "depthwise, then conv": lambda net, y: net.conv(
        net.relu(net.conv(y, 8, 16, group=8, pads=[0] * 4)), 16, 5, 1
    ),
    "transposed": lambda net, y: net.deconv(y, 8, 5, 3, strides=[1, 1], pads=[2] * 4),
    "transposed, grouped": lambda net, y: net.deconv(y, 8, 6, 1, group=2),
    "gemm": lambda net, y: net.gemm(net.op("Flatten", y), 288, 5, alpha=0.5, beta=2.0),
    "gemm without bias": lambda net, y: net.gemm(net.op("Flatten", y), 288, 5, bias=False),
    "gemm that ignores its bias": lambda net, y: net.gemm(net.op("Flatten", y), 288, 5, beta=0.0),
    "pooled, then gemm": lambda net, y: net.head(y, 8, 5),
    "matmul": lambda net, y: net.op(
        "MatMul", net.op("Flatten", y), net.weight(288, 5, fan_in=288)
    ),
    "matmul, weight left": lambda net, y: net.op(
        "MatMul", net.weight(5, 8, fan_in=8), net.reshape(y, 0, 8, 36)
    ),
    "residual": lambda net, y: net.conv(net.op("Add", y, net.relu(y)), 8, 5, 1),
    "concat and shuffle": lambda net, y: net.conv(
        net.reshape(
            net.op(
                "Transpose",
                net.reshape(net.op("Concat", y, net.op("Tanh", y), axis=1), 0, 2, 8, 6, 6),
                perm=[0, 2, 1, 3, 4],
            ),
            0, 16, 6, 6,
        ), 16, 5, 1,
    ),
    "mean over pixels": lambda net, y: net.gemm(
        net.op("ReduceMean", y, axes=[2, 3], keepdims=0), 8, 5
    ),
    "max pool": lambda net, y: net.conv(
        net.op("MaxPool", y, kernel_shape=[3, 3], pads=[1] * 4), 8, 5, 1
    ),
    "resized": lambda net, y: net.conv(
        net.op("Resize", y, "", net.store(np.array([1, 1, 2, 2], np.float32)), mode="linear"),
        8, 5, 1,
    ),
}  # fmt: skip


def silent_model(consumer, dtype=np.float32, batch_norm=True):
    net = Net(3, 8, 8, dtype=dtype)
    y = net.conv("x", 3, 8, bias=not batch_norm, name="a", pads=[0] * 4)
    y = net.op("HardSigmoid", net.bn(y, 8) if batch_norm else y)
    out = CONSUMERS[consumer](net, y)
    return silence(net.model(out), "a.weight", [1, 5])


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_constant_channels_are_absorbed_exactly(consumer, batch_norm):
    model = silent_model(consumer, batch_norm=batch_norm)
    pruned, skipped = drop(model, (1, 5), "constant")
    feeds = feeds_for(model, sizes_of(model))
    assert relative_difference(run(model, feeds), run(pruned, feeds)) < 1e-5
    assert not skipped
    dropped, _ = drop(model, (1, 5), "none")
    assert relative_difference(run(model, feeds), run(dropped, feeds)) > 1e-3


def test_half_precision():
    model = silent_model("conv", np.float16)
    pruned, _ = drop(model, (1, 5), "constant")
    feeds = feeds_for(model, sizes_of(model))
    assert relative_difference(run(model, feeds), run(pruned, feeds)) < 5e-3
    assert {t.data_type for t in pruned.graph.initializer} == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize(("size", "notes"), [(7, 0), (8, 1), ("H", 1)])
def test_padding_at_a_size_that_may_change_is_reported(size, notes):
    """Whether the last tap of a strided kernel meets padding depends on the size."""
    net = Net(3, size, size)
    y = net.op("Sigmoid", net.conv("x", 3, 8, name="a"))
    y = net.conv(y, 8, 5, 3, strides=[2, 2], pads=[0, 0, 1, 1], name="b")
    model = silence(net.model(net.head(y, 5)), "a.weight", [2])
    shapes = {"x": (2, 3, 7, 7)} if size == "H" else None
    result = RemoveZeroFilters(shapes)(model)
    assert result.details["filters_removed"] == 1
    assert sum(s.reason.startswith("zero padding") for s in result.skipped) == notes


def test_quantize_reports_the_same_of_filters_at_zero_bits():
    net = Net(3, 8, 8)
    y = net.op("Sigmoid", net.conv("x", 3, 8, name="a"))
    model = silence(net.model(net.conv(y, 8, 5, name="b")), "a.weight", [2])
    result = quantize(model, bits=4)
    assert result.details["removed_filters"] == 1
    assert ("b", "zero padding meets an absorbed constant: right on average only") in [
        (s.node, s.reason) for s in result.skipped
    ]


def test_padding_that_meets_a_constant_is_reported():
    net = Net(3, 8, 8)
    y = net.op("Sigmoid", net.conv("x", 3, 8, name="a"))
    model = silence(net.model(net.conv(y, 8, 5)), "a.weight", [2])
    pruned, (note,) = drop(model, (2,), "constant")
    assert "zero padding meets an absorbed constant" in note.reason
    feeds = feeds_for(model, sizes_of(model))
    (before,), (after,) = run(model, feeds), run(pruned, feeds)
    # Right on average.
    np.testing.assert_allclose(before.mean((0, 2, 3)), after.mean((0, 2, 3)), atol=1e-5)


def test_strides_of_a_transposed_conv_are_reported():
    net = Net(3, 8, 8)
    y = net.op("Sigmoid", net.conv("x", 3, 8, name="a"))
    model = silence(net.model(net.deconv(y, 8, 5, 2)), "a.weight", [2])
    pruned, (note,) = drop(model, (2,), "constant")
    assert "stride meets an absorbed constant" in note.reason
    feeds = feeds_for(model, sizes_of(model))
    (before,), (after,) = run(model, feeds), run(pruned, feeds)
    np.testing.assert_allclose(before.mean((0, 2, 3)), after.mean((0, 2, 3)), atol=1e-5)


def test_a_shared_bias_is_untied_when_one_consumer_takes_something_over():
    net = Net(3, 6, 6)
    zeros = net.store(np.zeros(5))
    y = net.op("Sigmoid", net.conv("x", 3, 8, name="a"))
    outs = []
    for source, c, name in ((y, 8, "b"), ("x", 3, "c")):
        w = net.weight(5, c, 1, 1, fan_in=c)
        outs.append(net.op("Conv", source, w, zeros, name=name))
    model = silence(net.model(*outs), "a.weight", [2])
    pruned, _ = drop(model, (2,), "constant")
    feeds = feeds_for(model, sizes_of(model))
    assert relative_difference(run(model, feeds), run(pruned, feeds)) < 1e-5


def test_a_bias_that_is_computed_is_kept():
    """The third input of a Gemm may come from the data: the constant is added behind."""
    net = Net(3, 6, 6)
    y = net.op("Sigmoid", net.conv("x", 3, 8, name="a"))
    bias = net.op("ReduceMean", net.op("Flatten", "x"), axes=[1], keepdims=1)
    w = net.weight(5, 288, fan_in=288)
    out = net.op("Gemm", net.op("Flatten", y), w, bias, transB=1)
    model = silence(net.model(out), "a.weight", [2])
    pruned, _ = drop(model, (2,), "constant")
    feeds = feeds_for(model, sizes_of(model))
    assert relative_difference(run(model, feeds), run(pruned, feeds)) < 1e-5


@pytest.mark.parametrize("bias_shape", [(5,), (1, 5), (1,), (), (5, 1)])
def test_gemm_biases_of_every_shape(bias_shape):
    """With its weight on the left, a Gemm has its filters along the rows."""
    left = bias_shape == (5, 1)
    net = Net(3, 4, 4, batch=2)
    y = net.op("Flatten", net.op("Sigmoid", net.conv("x", 3, 8, 1, name="a")))
    bias = net.vector(*bias_shape)
    if left:
        w = net.weight(5, 128, fan_in=128)
        out = net.op("Gemm", w, y, bias, transB=1, beta=0.5)
    else:
        out = net.op("Gemm", y, net.weight(128, 5, fan_in=128), bias, beta=0.5)
    model = silence(net.model(out), "a.weight", [2, 3])
    pruned, _ = drop(model, (2, 3), "constant")
    feeds = feeds_for(model, sizes_of(model))
    assert relative_difference(run(model, feeds), run(pruned, feeds)) < 1e-5


# Expected values.


@pytest.mark.parametrize(
    "activation",
    [
        lambda net, y: net.relu(y),
        lambda net, y: net.op("Mul", y, net.op("Sigmoid", y)),
        lambda net, y: net.op("Clip", y, net.store(np.array(0.0)), net.store(np.array(6.0))),
        lambda net, y: net.op("PRelu", y, net.vector(8, 1, 1)),
        lambda net, y: net.op(
            "Div",
            net.op("Mul", y, net.op("Relu", net.op("Add", y, net.store(np.array(3.0))))),
            net.store(np.array(6.0)),
        ),
        lambda net, y: net.op("Add", net.relu(y), net.vector(8, 1, 1)),
    ],
    ids=["relu", "silu", "relu6", "prelu", "hardswish", "shifted"],
)
def test_expected_values_match_a_measurement(activation):
    """On inputs for which N(β, γ²) holds, the mean of the output hardly moves."""
    net = Net(8, 4, 4)
    y = net.conv("x", 8, 8, 1, bias=False, name="a")
    rows = np.linalg.qr(net.rng.normal(size=(8, 8)))[0].reshape(8, 8, 1, 1)
    net.tensors[-1].CopyFrom(numpy_helper.from_array(rows.astype(np.float32), "a.weight"))
    params = [net.vector(8, low=0.5, high=1.5), net.vector(8), np.zeros(8), np.ones(8)]
    params[2:] = [net.store(p) for p in params[2:]]
    y = activation(net, net.op("BatchNormalization", y, *params, epsilon=0.0))
    model = net.model(net.conv(y, 8, 5, 1))
    feeds = feeds_for(model, {"x": (4000, 8, 4, 4)})
    (before,) = run(model, feeds)
    pruned, skipped = drop(model, (0, 3, 5), "mean")
    (after,) = run(pruned, feeds)
    np.testing.assert_allclose(after.mean((0, 2, 3)), before.mean((0, 2, 3)), atol=0.02)
    (dropped,) = run(drop(model, (0, 3, 5), "none")[0], feeds)
    assert np.abs(dropped.mean((0, 2, 3)) - before.mean((0, 2, 3))).max() > 0.1
    assert not skipped


def test_unknown_means_are_reported():
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    model = net.model(net.conv(y, 8, 5, name="b"))
    _, (note,) = drop(model, (0, 3), "mean")
    assert note.node == "b"
    assert "mean of 2 removed input channels is unknown" in note.reason
    assert "give images" in note.reason


def test_what_no_bias_can_take_over_is_reported():
    """Queries and keys are multiplied with each other: there is no bias there."""
    model = MODELS["attention"].build()
    result = Prune(ratio=0.6)(model)
    assert any("no bias to take it over" in s.reason for s in result.skipped)


@given(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3),
    st.tuples(*[st.integers(0, 3)] * 4), st.sampled_from(["", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    st.booleans(),
)  # fmt: skip
def test_coverage_is_that_of_a_brute_force_count(size, k, stride, dilation, pads, auto, turned):
    """An input of ones through a kernel with a single one counts where the tap meets input."""
    net = Net(1, size, size + 2, batch=1)
    attrs = {"strides": [stride, 1], "dilations": [dilation, 1]}
    if auto:
        attrs["auto_pad"] = auto
    else:
        attrs["pads"] = list(pads)
    try:
        w = net.store(np.ones((1, 1, k, k)))
        op = "ConvTranspose" if turned else "Conv"
        net.op(op, "x", w, kernel_shape=[k, k], name="c", **attrs)
        model = net.model("c_out")
        ones = {"x": np.ones((1, 1, size, size + 2), np.float32)}
        out = run(model, ones)[0].shape
    except Exception:
        return  # onnxruntime refuses windows larger than their input
    analysis = analyse(model)
    (layer,) = analysis.layers
    assert layer.output_shape == out
    got = tap_coverage(attributes(model.graph.node[0]), layer, (1, 1, size, size + 2), out)
    for i in range(k):
        for j in range(k):
            tap = np.zeros((1, 1, k, k), np.float32)
            tap[0, 0, i, j] = 1
            model.graph.initializer[0].CopyFrom(numpy_helper.from_array(tap, w))
            assert got[i, j] == pytest.approx(run(model, ones)[0].mean(), abs=1e-6)


def test_nothing_is_folded_when_nothing_is_removed():
    model = silent_model("conv")
    analysis, removed, _, _ = rewrite_or_lock(model, lambda a: [])
    assert fold_constants(analysis, removed, "mean") == ((), ())
