"""Models that are quantized already: static QDQ, fake quantization, operator form."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import onnx_esn
from onnx_esn.errors import OptionError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import find_layers
from onnx_esn.graph.quantized import with_float_weights
from onnx_esn.passes.quantizing.requantization import STAYS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import (
    assert_sliced_is_masked,
    free_classes,
    rewrite_or_lock,
    run,
)

# Static quantization.


def residual():
    """Residual block, depthwise Conv, pooling, Gemm; BatchNormalization folded."""
    net = Net(3, 6, 6, batch=1)
    x = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.conv(x, 8, 6, name="b"))
    y = net.conv(y, 6, 8, name="c")
    y = net.relu(net.op("Add", x, y))
    y = net.relu(net.conv(y, 8, 8, group=8, name="d"))
    return net.model(net.head(y, 8))


def mixed():
    """ConvTranspose, grouped Conv, Concat, MatMul with its bias behind, kept BatchNormalization."""
    net = Net(3, 4, 4, batch=1, seed=1)
    x = net.conv_bn_relu("x", 3, 8)
    y = net.relu(net.deconv(x, 8, 6))
    z = net.relu(net.conv(y, 6, 4, group=2))
    y = net.op("Concat", y, z, axis=1)
    y = net.op("Flatten", net.op("GlobalAveragePool", net.relu(net.conv(y, 10, 6, 1))))
    return net.model(net.linear(net.relu(net.gemm(y, 6, 8)), 8, 3))


S8, U8, S4, U16 = QuantType.QInt8, QuantType.QUInt8, QuantType.QInt4, QuantType.QUInt16
WAYS = {
    "s8s8_tensor": {"activation_type": S8, "weight_type": S8},
    "s8s8_channel": {"activation_type": S8, "weight_type": S8, "per_channel": True},
    "u8s8_channel": {"activation_type": U8, "weight_type": S8, "per_channel": True},
    "u8u8_tensor": {"activation_type": U8, "weight_type": U8},
    "u8u8_channel": {"activation_type": U8, "weight_type": U8, "per_channel": True},
    "float_bias": {
        "activation_type": U8,
        "weight_type": S8,
        "extra_options": {"QuantizeBias": False},
    },
    "pairs_on_weights": {
        "activation_type": S8,
        "weight_type": S8,
        "per_channel": True,
        "extra_options": {"AddQDQPairToWeight": True},
    },
    "own_4_bits": {"activation_type": U8, "weight_type": S4, "per_channel": True},
    "16_bits": {"activation_type": U16, "weight_type": S8, "per_channel": True},
    "a_pair_per_reader": {
        "activation_type": U8,
        "weight_type": S8,
        "extra_options": {"DedicatedQDQPair": True, "QDQKeepRemovableActivations": True},
    },
}
MODELS = {"residual": residual, "mixed": mixed}


class Random(CalibrationDataReader):
    def __init__(self, model):
        self.feeds = iter([feeds_for(model, sizes(model), seed) for seed in range(3)])

    def get_next(self):
        return next(self.feeds, None)


def sizes(model):
    return {
        i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in model.graph.input
    }


def quantized(model, tmp_path, quant_format=QuantFormat.QDQ, **options):
    source, target = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(model, source)  # a model in memory would come back without its weights
    try:
        quantize_static(source, target, Random(model), quant_format=quant_format, **options)
    except RuntimeError as error:
        if "8-bit before packing" not in str(error):
            raise
        pytest.skip("onnxruntime 1.23's quantizer does not know the 4-bit arrays of onnx 1.23")
    return onnx.load(target)


@pytest.fixture(params=[(m, w) for m in MODELS for w in WAYS], ids="-".join)
def static(request, tmp_path):
    """The float model and the quantized one."""
    model, way = request.param
    plain = MODELS[model]()
    return plain, quantized(plain, tmp_path, **WAYS[way])


def kernels(model, tmp_path):
    """What onnxruntime makes of a model: how many of each operator."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)


def test_inspect_counts_the_same_layers(static):
    plain, model = static
    expected = onnx_esn.inspect(plain)
    found = onnx_esn.inspect(model)
    assert [x.macs for x in found.layers] == [x.macs for x in expected.layers]
    assert found.unresolved == ()
    assert all(x.quantized for x in found.layers)
    assert {x.storage for x in found.layers} <= {"int8", "uint8", "int4"}
    for x in found.layers:
        assert max(x.filter_bits) == x.storage_bits
    assert [g.prunable for g in found.groups] == [g.prunable for g in expected.groups]


def test_sliced_is_masked(static):
    _, model = static

    def wanted(analysis):
        free = free_classes(analysis)
        return np.random.default_rng(0).permutation(free)[: len(free) // 2]

    analysis, removed, rewritten, _ = rewrite_or_lock(model, wanted)
    assert removed.any()
    assert_sliced_is_masked(analysis, removed, rewritten)


def test_pruned_models_run_on_the_same_kernels(static, tmp_path):
    plain, model = static
    result = onnx_esn.prune(model, ratio=0.5)
    onnx.checker.check_model(result.model, full_check=True)
    assert result.details["macs_after"] == onnx_esn.prune(plain, ratio=0.5).details["macs_after"]
    lost = kernels(model, tmp_path) - kernels(result.model, tmp_path)
    assert not lost
    (y,) = run(result.model, feeds_for(model, sizes(model)))
    assert np.isfinite(y).all()


def test_annotate(static):
    _, model = static
    result = onnx_esn.annotate(model).model
    onnx.checker.check_model(result, full_check=True)
    bits = [x.bits for x in onnx_esn.inspect(model).layers]
    assert [x.bits for x in onnx_esn.inspect(result).layers] == bits


def test_requantized_weights_are_those_it_computed_with(static):
    _, model = static
    layers = find_layers(model, Constants(model), Facts(sizes={}))
    floats = with_float_weights(model, layers)
    onnx.checker.check_model(floats, full_check=True)
    feeds = feeds_for(model, sizes(model))
    for a, b in zip(run(model, feeds), run(floats, feeds), strict=True):
        np.testing.assert_array_equal(a, b)
    again = find_layers(floats, Constants(floats), Facts(sizes={}))
    stored = {t.name for t in floats.graph.initializer}
    assert [x.name for x in again] == [x.name for x in layers]
    assert {x.weight for x in again} <= stored
    integers = {t.name for t in floats.graph.initializer if len(t.dims) > 1 and t.data_type != 1}
    assert not integers


def test_quantize_refuses_or_requantizes(static):
    _, model = static
    before = model.SerializeToString()
    with pytest.raises(OptionError, match=r"quantized already \(\d of \d layers.*--requantize"):
        onnx_esn.quantize(model, bits=3)
    result = onnx_esn.quantize(model, bits=3, requantize=True)
    assert model.SerializeToString() == before
    onnx.checker.check_model(result.model, full_check=True)
    found = onnx_esn.inspect(result.model)
    assert max(max(x.bits) for x in found.layers) == 3
    assert {x.storage for x in found.layers} == {"float32"}
    assert (result.skipped[0].node, result.skipped[0].reason) == ("activations", STAYS)
    assert activation_quantizers(result.model) == activation_quantizers(model) > 0
    run(result.model, feeds_for(model, sizes(model)))


def activation_quantizers(model):
    constants = Constants(model)
    return sum(
        n.op_type == "QuantizeLinear" and n.input[0] not in constants for n in model.graph.node
    )


def test_a_percentage_is_of_the_quantized_model(tmp_path):
    model = quantized(residual(), tmp_path, **WAYS["u8s8_channel"])
    cost = onnx_esn.inspect(model).totals.esn_prime
    result = onnx_esn.quantize(model, target_cost="50%", requantize=True)
    assert result.details["target"] == cost / 2
    assert onnx_esn.inspect(result.model).totals.esn_prime <= cost / 2


@pytest.mark.parametrize("method", ["nearest", "compensated"])
def test_compress(method, tmp_path):
    model = quantized(residual(), tmp_path, **WAYS["u8s8_channel"])
    images = {"x": np.random.default_rng(0).normal(size=(20, 3, 6, 6)).astype(np.float32)}
    with pytest.raises(OptionError, match="--requantize"):
        onnx_esn.compress(model, images, bits=4, method=method, latency=False)
    result = onnx_esn.compress(
        model, images, bits=4, method=method, ratio=0.25, latency=False, requantize=True
    )
    assert result.stages[0][0] == "requantize"
    assert result.stages[0][1].details == {"opened_layers": 5}
    totals = onnx_esn.inspect(result.model).totals
    assert totals.bits_per_mac <= 4
    assert totals.macs < onnx_esn.inspect(model).totals.macs
    onnx.checker.check_model(result.model, full_check=True)


# Operator form.


def test_integer_operators_are_named_and_left(tmp_path):
    model = quantized(residual(), tmp_path, QuantFormat.QOperator, per_channel=True)
    found = onnx_esn.inspect(model)
    assert found.layers == ()
    assert "QLinearConv is not counted" in {x.reason for x in found.unresolved}
    result = onnx_esn.prune(model, ratio=0.5)
    assert not result.modified
    assert "no rule for operator QLinearConv" in {s.reason for s in result.skipped}
    for requantize in (False, True):
        with pytest.raises(OptionError, match=r"integer operators only \(4 QLinearConv"):
            onnx_esn.quantize(model, bits=4, requantize=requantize)


# Written by hand: what other tools export, and corners.


def pair(net, x, scale=0.05, zero=128):
    scale, zero = net.store(np.array(scale)), net.raw(np.array(zero, np.uint8))
    y = net.op("QuantizeLinear", x, scale, zero)
    return net.op("DequantizeLinear", y, scale, zero)


def bits_of(net, y):
    (*_, layer) = onnx_esn.inspect(net.model(y)).layers
    return layer.filter_bits, layer


def test_bits_are_those_of_the_integers():
    """−128 is no code of a grid: the integers count, at no more bits than they are stored in."""
    net = Net(2, 1, 1, batch=1)
    q = np.zeros((6, 2, 1, 1), np.int8)
    q[:, 0, 0, 0] = [0, 1, 3, 100, 127, -128]
    q[:, 1, 0, 0] = [0, 0, -2, 3, 7, 5]
    w = net.op("DequantizeLinear", net.raw(q), net.vector(6, low=0.01, high=0.02), axis=0)
    bits, layer = bits_of(net, net.op("Conv", "x", w))
    assert bits == (0, 2, 3, 8, 8, 8)
    assert (layer.quantized, layer.storage) == (True, "int8")
    assert layer.esn_a == (q.astype(np.int64) ** 2).sum()
    # Each weight by itself: 0 and 0; 2 and 0; 3 and 3; 8 and 3; 8 and 4; 8 and 4.
    assert layer.esn_d == 0 + 2 + 6 + 11 + 12 + 12


def test_zero_points_count():
    net = Net(2, 1, 1, batch=1)
    q = np.array([[130, 128], [0, 255], [128, 128]], np.uint8).reshape(3, 2, 1, 1)
    zero = net.raw(np.array([128, 0, 128], np.uint8))
    w = net.op("DequantizeLinear", net.raw(q), net.vector(3, low=0.01, high=0.02), zero, axis=0)
    bits, layer = bits_of(net, net.op("Conv", "x", w))
    assert bits == (3, 8, 0)
    assert layer.esn_a == 4 + 255**2


@pytest.mark.parametrize("turned", [False, True])
def test_filters_on_axis_1_and_behind_a_transpose(turned):
    """Gemm without transB; and with it, behind a Transpose of what is dequantized along axis 1."""
    net = Net(3, batch=2)
    q = np.array([[1, 100, -128], [1, 2, 3], [0, 4, 7]], np.int8)  # (C, M)
    w = net.op("DequantizeLinear", net.raw(q), net.vector(3, low=0.01, high=0.02), axis=1)
    if turned:
        w = net.op("Transpose", w, perm=[1, 0])
    bits, _ = bits_of(net, net.op("Gemm", "x", w, transB=int(turned)))
    assert bits == (2, 8, 8)


@pytest.mark.parametrize("block", [2, 3])
def test_blocks_of_four_bit_integers(block):
    """Several scales in a filter, the last block a short one: bits are those of the integers."""
    net = Net(8, batch=2, opset=21, ir=10)
    q = np.zeros((8, 3), np.int64)
    q[:, 0], q[:, 1], q[5, 2] = [7, -8, 1, 0, 0, 2, 3, 4], 1, -3
    w = net.op(
        "DequantizeLinear",
        net.raw(q.astype(ml_dtypes.int4)),
        net.vector(-(-8 // block), 3, low=0.01, high=0.02),
        net.raw(np.ones((-(-8 // block), 3), np.int64).astype(ml_dtypes.int4)),
        axis=0,
        block_size=block,
    )
    bits, layer = bits_of(net, net.op("MatMul", "x", w))
    # Less the zero point 1: −9 … 6, zeros only, and −4 beside −1.
    assert bits == (4, 0, 4)
    assert layer.storage == "int4"


def fake_quantized(axis, *, seed=0):
    """QuantizeLinear and DequantizeLinear on float weights, as training frameworks export them."""
    net = Net(3, 5, 5, batch=1, opset=13, seed=seed)
    scale = {"a": net.vector(6, low=0.01, high=0.03), "b": net.vector(6, low=0.01, high=0.03)}
    zero = net.raw(np.full(6, 100, np.uint8))

    def fake(name, weight, axis):
        return net.op(
            "DequantizeLinear",
            net.op("QuantizeLinear", weight, scale[name], zero, axis=axis),
            scale[name],
            zero,
            axis=axis,
        )

    w = fake("a", net.weight(6, 3, 3, 3, fan_in=27), 0)
    x = pair(net, net.relu(net.op("Conv", pair(net, "x"), w, pads=[1] * 4, name="a")))
    if axis == 0:
        w = fake("b", net.weight(6, 6, 3, 3, fan_in=54), 0)
        x = net.op("Conv", x, w, pads=[1] * 4, name="b")
    else:
        w = fake("b", net.weight(6, 6, 2, 2, fan_in=24), 1)
        x = net.op("ConvTranspose", x, w, strides=[2, 2], name="b")
    return net.model(net.head(net.relu(pair(net, x)), 6))


@pytest.mark.parametrize("axis", [0, 1])
def test_fake_quantization_of_weights(axis):
    model = fake_quantized(axis)
    found = onnx_esn.inspect(model).layers
    assert [x.storage for x in found] == ["uint8", "uint8", "float32"]
    assert all(b <= 8 for x in found[:2] for b in x.filter_bits)
    analysis, removed, rewritten, _ = rewrite_or_lock(model, lambda a: free_classes(a)[::2])
    assert removed.any()
    assert_sliced_is_masked(analysis, removed, rewritten)
    with pytest.raises(OptionError, match=r"^a, b: quantized already \(2 of 3 layers"):
        onnx_esn.quantize(model, bits=2)
    part = onnx_esn.quantize(model, bits=2, exclude=("a", "b"))
    assert [x.storage for x in onnx_esn.inspect(part.model).layers] == [x.storage for x in found]
    whole = onnx_esn.quantize(model, bits=2, requantize=True, exclude=("a",)).model
    assert [x.storage for x in onnx_esn.inspect(whole).layers] == ["uint8", "float32", "float32"]
    assert onnx_esn.inspect(whole).layers[1].bits == {2: 6}


def shared(kind):
    """Two layers on the same integers: through one DequantizeLinear or two, from a Constant."""
    net = Net(4, 4, 4, batch=1)
    q = np.random.default_rng(0).integers(-128, 127, (4, 4, 1, 1)).astype(np.int8)
    stored = (
        net.op("Constant", value=numpy_helper.from_array(q)) if kind == "constant" else net.raw(q)
    )
    scale = net.vector(4, low=0.002, high=0.004)
    w = [net.op("DequantizeLinear", stored, scale, axis=0) for _ in range(1 + (kind == "twice"))]
    x = net.relu(net.op("Conv", "x", w[0], name="a"))
    return net.model(net.op("Conv", x, w[-1], name="b"))


@pytest.mark.parametrize("kind", ["once", "twice", "constant"])
def test_shared_integers_stay_shared(kind):
    model = shared(kind)
    result = onnx_esn.quantize(model, bits=3, requantize=True)
    assert [n.op_type for n in result.model.graph.node] == ["Conv", "Relu", "Conv"]
    assert len(result.model.graph.initializer) == 1
    first, second = result.plan.layers
    assert (first.bits, first.step) == (second.bits, second.step)
    if kind == "once":  # the one that stays keeps the integers of both
        kept = onnx_esn.quantize(model, bits=3, requantize=True, exclude=("b",))
        assert not kept.modified
        assert [x.storage for x in onnx_esn.inspect(kept.model).layers] == ["int8", "int8"]


def test_dequantized_tensors_that_are_outputs_too():
    net = Net(4, 4, 4, batch=1)
    q = net.raw(np.random.default_rng(0).integers(-128, 127, (4, 4, 1, 1)).astype(np.int8))
    w = [net.op("DequantizeLinear", q, net.store(np.array(0.01))) for _ in range(2)]
    x = net.op("Conv", net.op("Conv", "x", w[0]), w[1])
    net.declare(w[1], 4, 4, 1, 1)
    model = net.model(x, w[1])
    layers = find_layers(model, Constants(model), Facts(sizes={}))
    floats = with_float_weights(model, layers)
    feeds = feeds_for(model, sizes(model))
    for a, b in zip(run(model, feeds), run(floats, feeds), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("target", ["qdq", "qonnx"])
def test_formats_of_our_own_open_to_the_same_weights(target, bits):
    fake = onnx_esn.quantize(residual(), bits=bits).model
    stored = onnx_esn.convert(fake, format=target).model
    with pytest.raises(OptionError, match=r"\(5 of 5 layers"):
        onnx_esn.quantize(stored, bits=2)
    again = onnx_esn.quantize(stored, bits=2, requantize=True)
    assert again.plan.layers == onnx_esn.quantize(fake, bits=2).plan.layers
    kinds = {n.op_type for n in again.model.graph.node}
    assert not kinds & {"DequantizeLinear", "Quant"}


def test_a_plan_names_what_is_opened():
    model = fake_quantized(0)
    plan = onnx_esn.quantize(model, bits=4, requantize=True, exclude=("b",)).plan
    with pytest.raises(OptionError, match=r"^a: quantized already"):
        onnx_esn.quantize(model, plan=plan)
    again = onnx_esn.quantize(model, plan=plan, requantize=True).model
    assert [x.storage for x in onnx_esn.inspect(again).layers] == ["float32", "uint8", "float32"]


# Biases.


def zero_filters(bias, *, shared_bias=False, gemm=False):
    """Filters 0 and 2 of layer a are zero and emit relu(β); layer b has a bias of 32 bits."""
    net = Net(3, 4, 4, batch=1)
    q = net.rng.integers(-90, 90, (4, 3, 1, 1)).astype(np.int8)
    q[[0, 2]] = 0
    scale = net.vector(4, low=0.005, high=0.01)
    w = net.op("DequantizeLinear", net.raw(q), scale, axis=0)
    beta = net.store(np.array([0.5, 0.1, 0.25, -0.1]))
    x = pair(net, net.relu(net.op("Conv", pair(net, "x"), w, beta, name="a")))
    step = net.store(np.array([0.0005, 0.001, 0.0015, 0.002, 0.0025]))
    b = net.op("DequantizeLinear", net.raw(bias), step, axis=0)
    v = np.random.default_rng(1).integers(-90, 90, (5, 4, 1, 1)).astype(np.int8)
    if gemm:
        x = net.op("Flatten", net.op("GlobalAveragePool", x))
        v = v.reshape(5, 4)
    v = net.op("DequantizeLinear", net.raw(v), net.vector(5, low=0.005, high=0.01), axis=0)
    op, attrs = ("Gemm", {"transB": 1, "beta": 0.5}) if gemm else ("Conv", {})
    y = net.op(op, x, v, b, name="b", **attrs)
    if shared_bias:
        y = net.op("Add", y, net.op(op, x, v, b, name="c", **attrs))
    return net.model(pair(net, y)), net


def constant_of(model, name):
    constants = Constants(model)
    return constants.value(name)


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("shared_bias", [False, True])
def test_constants_go_into_integer_biases(gemm, shared_bias):
    """A bias of 32-bit integers stays one: what is added is rounded to its step."""
    old = np.array([100, -200, 300, 0, 7], np.int32)
    model, _ = zero_filters(old, gemm=gemm, shared_bias=shared_bias)
    result = onnx_esn.RemoveZeroFilters()(model).model
    onnx.checker.check_model(result, full_check=True)
    layers = {n.name: n for n in result.graph.node}
    assert len([n for n in result.graph.node if n.op_type == "Add"]) == int(shared_bias)
    before = next(n for n in model.graph.node if n.name == "b")
    W = constant_of(model, before.input[1]).astype(np.float64).reshape(5, 4)
    added = W[:, [0, 2]] @ [0.5, 0.25] / (0.5 if gemm else 1.0)
    step = np.array([0.0005, 0.001, 0.0015, 0.002, 0.0025], np.float32).astype(np.float64)
    for name in ("b", "c") if shared_bias else ("b",):
        maker = next(n for n in result.graph.node if layers[name].input[2] in n.output)
        integers = constant_of(result, maker.input[0])
        assert (maker.op_type, integers.dtype) == ("DequantizeLinear", np.int32)
        np.testing.assert_array_equal(integers, old + np.rint(added / step))
    read = {i for n in result.graph.node for i in n.input} | {o.name for o in result.graph.output}
    assert all(o in read for n in result.graph.node for o in n.output)


def test_integer_biases_that_would_overflow_get_an_add():
    model, _ = zero_filters(np.full(5, 2**31 - 1, np.int32))
    result = onnx_esn.RemoveZeroFilters()(model).model
    assert [n.op_type for n in result.graph.node].count("Add") == 1


def test_absorption_keeps_integer_kernels(tmp_path):
    """With images every consumer's bias takes something over."""
    model = quantized(residual(), tmp_path, **WAYS["u8s8_channel"])
    images = {"x": np.random.default_rng(0).normal(size=(20, 3, 6, 6)).astype(np.float32)}
    result = onnx_esn.prune(model, ratio=0.5, images=images)
    int32 = onnx.TensorProto.INT32
    biases = {t.name for t in result.model.graph.initializer if t.data_type == int32}
    assert biases != {t.name for t in model.graph.initializer if t.data_type == int32}
    assert kernels(result.model, tmp_path) == kernels(model, tmp_path)


def test_expected_values_pass_quantizers():
    """What a removed channel still sent is known behind QuantizeLinear, saturation included."""
    from onnx_esn.graph.channels.expectation import expectations
    from onnx_esn.graph.channels.groups import analyse

    def moments(quantizers):
        net = Net(3, 4, 4, batch=1)
        x = net.bn(net.conv("x", 3, 8, bias=False), 8)
        # Relu as the quantizer has it: nothing below its zero point.
        x = pair(net, x, 0.001, 0) if quantizers else net.op("Clip", x, *ends(net))
        analysis = analyse(net.model(net.head(x, 8)))
        return expectations(analysis)[x].channels(8)

    def ends(net):
        return net.store(np.array(0.0)), net.store(np.array(0.255))

    plain, rounded = moments(False), moments(True)
    for a, b in zip(plain, rounded, strict=True):
        assert np.abs(a - b).max() < 0.001
    assert (plain[1] > 0).all()
