"""Quantized activations: the model around them, and every graph that the tests know."""

from __future__ import annotations

import logging
import random

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from onnx_esn.errors import ImageSetError, ModelError, OptionError
from onnx_esn.graph.inputs import input_sizes
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.activations.quantizing import QuantizeActivations, quantize_activations
from tests.graph.random_graphs import random_model, sizes_of_run
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.passes.activations.runs import LEVELS, fake, images, residual, run, snr
from tests.passes.tiny import two_convs


def test_the_model_given_stays_and_the_result_is_the_same_twice():
    model = fake(two_convs())
    before = model.SerializeToString(deterministic=True)
    first = quantize_activations(model, images(), kind="uint8").model
    assert model.SerializeToString(deterministic=True) == before
    again = quantize_activations(model, images(), kind="uint8").model
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(
        deterministic=True
    )
    onnx.checker.check_model(first, full_check=True)
    onnx.shape_inference.infer_shapes(first, strict_mode=True, data_prop=True)
    assert [o.name for o in first.graph.output] == [o.name for o in model.graph.output]
    stored = {t.name for t in first.graph.initializer}
    used = {name for node in first.graph.node for name in node.input}
    assert stored <= used


@pytest.mark.parametrize("level", LEVELS)
def test_all_optimization_levels_agree(level):
    """Integer kernels round once where the graph as written rounds twice: one step apart."""
    model = fake(two_convs())
    result = quantize_activations(model, images(), kind="uint8").model
    plain, found = run(result, images(), "ORT_DISABLE_ALL")[0], run(result, images(), level)[0]
    scale = np.abs(plain).max() / 255
    assert np.abs(plain - found).max() <= 2 * scale


def test_the_reference_evaluator_agrees():
    """Both follow the graph as written: they differ where a tie rounds the other way."""
    model = quantize_activations(fake(two_convs()), images(), kind="int16").model
    (plain,) = run(model, images(), "ORT_DISABLE_ALL")
    (found,) = ReferenceEvaluator(model).run(None, {"x": images()})
    assert np.abs(plain - found).max() <= np.abs(plain).max() / 32767


def test_the_calibrator_goes_by_the_kind():
    for kind, calibrator in (("uint8", "percentile"), ("int8", "percentile"), ("int16", "minmax")):
        result = quantize_activations(fake(two_convs()), images(), kind=kind)
        assert result.details["calibrator"] == calibrator


def test_a_layer_that_reads_zeros_gives_its_bias():
    net = Net(3, 6, 6)
    zeros = net.op("Sub", "x", "x")
    model = fake(net.model(net.head(net.relu(net.conv(zeros, 3, 8)), 8)))
    result = quantize_activations(model, images(), kind="int16")
    assert snr(run(model, images()), run(result.model, images())) > 60


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_keep_their_outputs(seed):
    model = standard_form(random_model(random.Random(seed)))
    feeds = feeds_for(model, sizes_of_run(model), seed)
    try:
        model = fake(model)
        reference = run(model, feeds)
        result = quantize_activations(model, feeds, kind="int16")
    except (ModelError, ort.capi.onnxruntime_pybind11_state.NotImplemented) as error:
        pytest.skip(f"not for this runtime or pass: {error}")
    onnx.checker.check_model(result.model)
    found = run(result.model, feeds, "ORT_ENABLE_EXTENDED")
    floats = [i for i, a in enumerate(reference) if a.dtype == np.float32]
    assert snr([reference[i] for i in floats], [found[i] for i in floats]) > 50


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_an_open_batch_stays_open(batch):
    result = quantize_activations(fake(two_convs()), images(), kind="uint8")
    (y,) = run(result.model, images(batch))
    assert y.shape == (batch, 4)


def test_a_fixed_batch_stays_fixed():
    model = fake(two_convs(batch=3))
    result = quantize_activations(model, images(7), kind="uint8")
    assert snr(run(model, images(3)), run(result.model, images(3))) > 30


@pytest.mark.parametrize(("ir", "opset"), [(3, 9), (4, 10), (6, 11), (7, 12), (8, 17)])
def test_old_operator_sets_are_raised(ir, opset):
    model = fake(two_convs(ir=ir, opset=opset))
    result = quantize_activations(model, images(), kind="uint8")
    if opset > 9:  # below, inference leaves the output of the model given without a shape
        onnx.checker.check_model(result.model, full_check=True)
    assert result.model.opset_import[0].version == max(opset, 13)
    assert snr(run(model, images()), run(result.model, images())) > 30
    with pytest.raises(OptionError, match="keep"):
        quantize_activations(model, images(), kind="int16", keep_opset=True)


def test_int8_warns_of_tensors_read_twice(caplog):
    with caplog.at_level(logging.WARNING):
        quantize_activations(fake(two_convs()), images(), kind="int8")
        assert not caplog.records
        quantize_activations(fake(residual()), images(), kind="int8")
    assert "uint8 runs faster" in caplog.text


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_refused(dtype):
    with pytest.raises(ModelError, match="float32"):
        quantize_activations(two_convs(dtype=dtype), images())


def test_quantized_activations_are_refused():
    model = quantize_activations(fake(two_convs()), images(), kind="uint8").model
    with pytest.raises(ModelError, match="quantized already"):
        quantize_activations(model, images())


def test_unknown_options_are_refused():
    with pytest.raises(OptionError, match=r"int8, int16, uint8, .*uint2"):
        QuantizeActivations(images(), kind="int4")
    with pytest.raises(OptionError, match="minmax, entropy, percentile"):
        quantize_activations(two_convs(), images(), calibrator="best")
    with pytest.raises(ImageSetError):
        quantize_activations(two_convs(), images()[:, :2])


def test_an_if_body_stays_and_reads_what_it_read():
    case = next(n for n in MODELS if "branch" in n or "if" in n.split("_"))
    model = MODELS[case].build()
    sizes = input_sizes(model, batch=4, spatial=32)
    feeds = feeds_for(model, sizes)
    result = quantize_activations(fake(model), feeds if len(feeds) > 1 else feeds.popitem()[1])
    onnx.checker.check_model(result.model)


# Every graph that the tests know.

NO_FLOATS = "it picks boxes: a small error changes which"
SKIPPED = {"best_boxes": NO_FLOATS}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_sixteen_bits_give_the_outputs_of_the_fake_model(name):
    """With activations this fine, what is left is the weights, biases and norms: they are exact."""
    model = standard_form(MODELS[name].build())
    try:
        feeds = feeds_for(model, input_sizes(model, batch=8, spatial=32))
        model = fake(model)
        reference = run(model, feeds)
    except Exception as error:  # not for this runtime, or not for random numbers
        pytest.skip(f"does not run: {error}")
    try:
        result = quantize_activations(model, feeds, kind="int16")
    except (ModelError, ImageSetError) as error:
        pytest.skip(f"refused: {error}")
    onnx.checker.check_model(result.model)
    if name in SKIPPED:
        pytest.skip(SKIPPED[name])
    floats = [i for i, a in enumerate(reference) if a.dtype == np.float32]
    # Operators as the file has them: beyond that onnxruntime 1.32 multiplies such Gemms in 8 bits.
    found = run(result.model, feeds, "ORT_ENABLE_BASIC")
    rounded = any("on no grid" in s.reason for s in result.skipped)
    assert snr([reference[i] for i in floats], [found[i] for i in floats]) > (40 if rounded else 50)
