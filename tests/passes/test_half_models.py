"""float16 and bfloat16: every verb gives a model of the type it got."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

import onnx_esn
from onnx_esn.errors import InferenceError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import find_layers
from onnx_esn.graph.number_formats import round_to
from onnx_esn.graph.weights import read_weight
from tests.net import Net, feeds_for
from tests.oracles.equivalence import (
    assert_sliced_is_masked,
    free_classes,
    rewrite_or_lock,
    run,
)
from tests.oracles.precision import in_type

HALF, BRAIN = TensorProto.FLOAT16, TensorProto.BFLOAT16
KINDS = {"float16": HALF, "bfloat16": BRAIN}
IMAGES = {"x": np.random.default_rng(0).normal(size=(20, 3, 6, 6)).astype(np.float16)}
BITS = (1, 2, 3, 4, 5, 6, 7, 8)


def kept():
    """BatchNormalization kept; residual, depthwise, Clip from Constant nodes, Gemm."""
    net = Net(3, 6, 6, opset=22, ir=10)
    x = net.conv_bn_relu("x", 3, 8)
    y = net.conv_bn_relu(x, 8, 6)
    y = net.bn(net.conv(y, 6, 8, bias=False), 8)
    y = net.relu(net.op("Add", x, y))
    low = net.op("Constant", value=onnx.numpy_helper.from_array(np.array(0, np.float32)))
    y = net.op("Clip", net.conv(y, 8, 8, group=8), low, net.store(np.array(6.0)))
    return net.model(net.head(y, 8))


def folded():
    """No BatchNormalization; ConvTranspose, grouped Conv, Concat, MatMul with its bias behind."""
    net = Net(3, 6, 6, opset=22, ir=10, seed=1)
    y = net.relu(net.deconv(net.relu(net.conv("x", 3, 8)), 8, 6))
    y = net.op("Concat", y, net.relu(net.conv(y, 6, 4, group=2)), axis=1)
    y = net.op("Flatten", net.op("GlobalAveragePool", net.relu(net.conv(y, 10, 6, 1))))
    return net.model(net.linear(net.relu(net.gemm(y, 6, 8)), 8, 3))


@pytest.fixture(params=[kept, folded], ids=lambda f: f.__name__)
def single(request):
    return request.param()


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def model(single, kind):
    return in_type(single, (TensorProto.FLOAT,), kind)


def float_types(model):
    """Types of everything in a model that is stored or declared as a float."""
    tensors = [t.data_type for t in model.graph.initializer]
    tensors += [a.t.data_type for n in model.graph.node for a in n.attribute if a.HasField("t")]
    tensors += [i.type.tensor_type.elem_type for i in (*model.graph.input, *model.graph.output)]
    return set(tensors) & {TensorProto.FLOAT, TensorProto.DOUBLE, HALF, BRAIN}


def test_verbs_without_images_keep_the_type(model, kind):
    before = model.SerializeToString()
    assert float_types(model) == {kind}
    assert {x.storage_bits for x in onnx_esn.inspect(model).layers} == {16}
    pruned = onnx_esn.prune(model, ratio=0.5).model
    exact = onnx_esn.prune(model, exact=True).model
    quantized = onnx_esn.quantize(pruned, bits=4).model
    budget = onnx_esn.quantize(model, target_cost="20%").model
    tread = onnx_esn.quantize(model, bits=4, quantizer="mid-tread").model
    annotated = onnx_esn.annotate(quantized).model
    for made in (pruned, exact, quantized, budget, tread, annotated):
        onnx.checker.check_model(made, full_check=True)
        assert float_types(made) == {kind}
        assert [o.SerializeToString() for o in made.graph.output] == [
            o.SerializeToString() for o in model.graph.output
        ]
    assert model.SerializeToString() == before


def test_pruned_halves_are_the_pruned_floats_rounded(single, kind):
    """The plan of one type on the other: the same slices; biases are off by their rounding."""
    model = in_type(single, (TensorProto.FLOAT,), kind)
    pruned = onnx_esn.prune(model, ratio=0.5)
    same = onnx_esn.prune(single, plan=pruned.plan).model
    rounded = in_type(same, (TensorProto.FLOAT,), kind)
    shapes = [(t.name, tuple(t.dims), t.data_type) for t in pruned.model.graph.initializer]
    assert shapes == [(t.name, tuple(t.dims), t.data_type) for t in rounded.graph.initializer]
    ulp = {HALF: 2.0**-10, BRAIN: 2.0**-7}[kind]
    pairs = zip(pruned.model.graph.initializer, rounded.graph.initializer, strict=True)
    for a, b in pairs:
        x, y = (onnx.numpy_helper.to_array(t).astype(np.float64) for t in (a, b))
        # A sum of two numbers, each rounded once: no further apart than an ulp of the largest.
        assert np.abs(x - y).max() <= ulp * max(1.0, np.abs(y).max())


def test_sliced_is_masked(model):
    analysis, removed, rewritten, _ = rewrite_or_lock(model, lambda a: free_classes(a)[::2])
    assert removed.any()
    sizes = [{"x": (2, 3, 6, 6)}]
    if model.graph.input[0].type.tensor_type.elem_type == BRAIN:
        # Neither onnxruntime nor the reference runs all of it: in float32, of the same numbers.
        single = in_type(model, (BRAIN,), TensorProto.FLOAT)
        of_same = rewrite_or_lock(single, lambda a: free_classes(a)[::2])
        expected = in_type(rewritten.model, (BRAIN,), TensorProto.FLOAT)
        assert tensors(expected) == tensors(of_same[2].model)
        assert_sliced_is_masked(*of_same[:3], sizes=sizes)
    else:
        assert_sliced_is_masked(analysis, removed, rewritten, sizes=sizes)


def tensors(model):
    return {
        t.name: onnx.numpy_helper.to_array(t).tobytes()
        for t in model.graph.initializer
        if t.data_type == TensorProto.FLOAT
    }


@pytest.mark.parametrize("bits", BITS)
def test_quantized_values_are_numbers_of_the_type(model, kind, bits):
    """Codes and steps are read back from the file, and give its values to the last bit.

    At 7 bits a bfloat16 has as many digits as a code: a layer of few weights is not told from
    floats any more, but its values are those of the plan.
    """
    result = onnx_esn.quantize(model, bits=bits)
    constants = Constants(result.model)
    plan = {entry.layer: entry for entry in result.plan.layers}
    most = 7 if kind == BRAIN else 8
    for layer in find_layers(result.model, constants, Facts(sizes={})):
        weight = read_weight(layer, constants)
        assert weight.type == kind
        entry = plan[layer.name]
        assert max(entry.bits) <= min(bits, most)
        step = np.array(entry.step)[:, None]
        codes = np.floor(weight.W / step) + 0.5
        assert (np.abs(codes).max(axis=1) <= 2.0 ** (np.array(entry.bits) - 1) - 0.5).all()
        np.testing.assert_array_equal(round_to(step * codes, kind), weight.W)
        if kind == HALF or bits < 7 or weight.W.size > 100:
            assert weight.codes is not None
            assert (weight.filter_bits <= entry.bits).all()
            values = round_to(weight.step[:, None] * weight.codes, kind)
            np.testing.assert_array_equal(values, weight.W)


def test_verbs_with_images(single):
    model = in_type(single, (TensorProto.FLOAT,), HALF)
    quantized = onnx_esn.quantize(model, bits=4, images=IMAGES).model
    results = [
        quantized,
        onnx_esn.prune(model, ratio=0.5, images=IMAGES).model,
        onnx_esn.recalibrate(quantized, IMAGES, reference=model).model,
        onnx_esn.compress(model, IMAGES, target_cost="15%", effort="fast", latency=False).model,
    ]
    for made in results:
        onnx.checker.check_model(made, full_check=True)
        assert float_types(made) == {HALF}
        (y,) = run(made, feeds_for(made, {"x": (2, 3, 6, 6)}))
        assert y.dtype == np.float16
        assert np.isfinite(y).all()


def test_no_kernel_for_the_type_is_said():
    model = in_type(kept(), (TensorProto.FLOAT,), BRAIN)
    try:
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except ort.capi.onnxruntime_pybind11_state.NotImplemented:
        pass
    else:
        pytest.skip("this onnxruntime runs bfloat16")
    for verb in (
        lambda: onnx_esn.quantize(model, bits=4, images=IMAGES),
        lambda: onnx_esn.prune(model, ratio=0.5, images=IMAGES),
        lambda: onnx_esn.compress(model, IMAGES, bits=4),
        lambda: onnx_esn.evaluate([model], IMAGES),
    ):
        with pytest.raises(InferenceError, match="convert the model to float32"):
            verb()


def test_a_bfloat16_bias_is_added_to_in_silence(capfd):
    """GraphSurgeon has no name for the type, and says so of every tensor it looks at."""
    model = in_type(kept(), (TensorProto.FLOAT,), BRAIN)
    result = onnx_esn.prune(model, ratio=0.5)
    assert result.plan.folded_constants
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@pytest.mark.parametrize("images", [None, IMAGES])
def test_filters_of_the_smallest_numbers_do_not_blur_the_layer(images):
    """A dead filter in float16: zeros among its values put its layer off the mid-rise grid."""
    model = in_type(folded(), (TensorProto.FLOAT,), HALF)
    tensor = next(t for t in model.graph.initializer if t.dims[:] == [6, 10, 1, 1])
    W = onnx.numpy_helper.to_array(tensor) / 16
    W[2, :, 0, 0] = np.array([-3, -2, -1, 0, 0, 0, 1, 1, 2, 3]) * 2.0**-24
    tensor.CopyFrom(onnx.numpy_helper.from_array(W, tensor.name))
    result = onnx_esn.quantize(model, bits=4, images=images)
    for layer in onnx_esn.inspect(result.model).layers:
        assert layer.quantized
        assert max(layer.bits) <= 4
    assert onnx_esn.inspect(result.model).totals.esn_prime <= result.details["cost_after"]
