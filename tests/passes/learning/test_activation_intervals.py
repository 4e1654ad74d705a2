"""Ranges of activations learned with the codes: what is taught is what is deployed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_esn.calibration import input_specs
from onnx_esn.calibration.ranges import tensor_ranges
from onnx_esn.errors import OptionError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import find_layers
from onnx_esn.passes.activations.quantizing import QuantizeActivations
from onnx_esn.passes.correcting.output_divergence import output_divergences
from onnx_esn.passes.learning.activation_intervals import quantized_student
from onnx_esn.passes.learning.options import LearnOptions
from onnx_esn.passes.learning.quantized_weights import LearnQuantization
from onnx_esn.passes.learning.student import make_student
from onnx_esn.plans import QuantizationPlan, load_plan
from tests.passes.activations.runs import run
from tests.passes.learning.test_learning import planned
from tests.passes.quantizing.test_compensation import images_for, network

FEW = LearnOptions(epochs=6, batch_size=8, vary=False)


@pytest.mark.parametrize("kind", ["uint2", "uint4", "uint8", "int8"])
def test_the_student_computes_what_is_written(kind):
    """The graph that is taught ≡ the model with QuantizeLinear; without biases, which it rounds."""
    model = network(norm=False)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 1:
            zeros = np.zeros(tuple(tensor.dims), np.float32)
            tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))
    images = images_for(model, 24)
    start = planned(model, images, 3).model
    quantize = QuantizeActivations(images, kind=kind)
    layers = find_layers(start, Constants(start), Facts(sizes={}))
    student, learned = make_student(start, layers)
    intervals = quantized_student(quantize, start, student)
    feeds = {}
    for layer in learned.values():
        feeds |= layer.feeds(layer.rows, np.zeros(layer.layer.filters))
    for tensor in student.graph.initializer:
        if tensor.name in feeds:
            tensor.CopyFrom(numpy_helper.from_array(feeds[tensor.name], tensor.name))
    deployed = replace(quantize, ranges=intervals.ranges().by_tensor())(start).model
    (batch,) = images.batches(24)
    # Without fused integer kernels, which round sums and means in their own way.
    (a,), (b,), (c,) = (run(m, batch.feeds, "ORT_DISABLE_ALL") for m in (student, deployed, start))
    apart, moved = np.abs(a - b), np.abs(c - b)
    assert np.median(apart) < 0.02 * np.median(moved)


def test_learned_ranges_agree_better_than_calibrated_ones():
    model = network()
    images, held = images_for(model, 48), images_for(model, 24, seed=9)
    start = planned(model, images, 3)
    quantize = QuantizeActivations(images, kind="uint2")
    options = replace(FEW, epochs=3 * FEW.epochs)
    learn = LearnQuantization(start.plan, images, held, options=options, activations=quantize)
    result = learn(model)
    assert result.details["accepted"]
    ranges = result.plan.activations
    assert ranges.kind == "uint2"
    ends = [quantize(start.model), replace(quantize, ranges=ranges.by_tensor())(result.model)]
    before, after = output_divergences(model, [x.model for x in ends], held)
    assert after < before
    assert result.details["divergence_before"] == pytest.approx(before)
    assert result.details["divergence_after"] == pytest.approx(after)
    assert ends[0].details["ranges"] != ends[1].details["ranges"]
    written = ends[1].details["ranges"]
    for tensor, pair in ranges.by_tensor().items():
        assert tuple(written[tensor]) == pair


def test_the_plan_carries_them(tmp_path):
    model = network()
    images = images_for(model, 32)
    start = planned(model, images, 2)
    quantize = QuantizeActivations(images, kind="uint4")
    result = LearnQuantization(start.plan, images, None, options=FEW, activations=quantize)(model)
    path = tmp_path / "plan.json"
    path.write_text(result.plan.to_json(), encoding="utf-8")
    assert load_plan(path, QuantizationPlan) == result.plan
    again = LearnQuantization(start.plan, images, None, options=FEW, activations=quantize)(model)
    assert again.plan == result.plan


def test_block_by_block_is_refused():
    model = network()
    images = images_for(model, 16)
    quantize = QuantizeActivations(images, kind="uint4")
    options = replace(FEW, block_epochs=1)
    plan = planned(model, images, 2).plan
    with pytest.raises(OptionError, match="block_epochs"):
        LearnQuantization(plan, images, None, options=options, activations=quantize)(model)


def test_mse_ranges_are_within_the_extremes_and_narrower_with_fewer_bits():
    model = network()
    images = images_for(model, 32)
    tensor = model.graph.input[0].name
    assert input_specs(model)
    (low, high) = tensor_ranges(model, [tensor], images, calibrator="minmax")[tensor]
    widths = []
    for bits in (8, 4, 2):
        found = tensor_ranges(model, [tensor], images, calibrator="mse", steps=2**bits - 1)[tensor]
        assert low <= found[0] <= found[1] <= high
        widths.append(found[1] - found[0])
    assert widths[0] >= widths[1] > widths[2]
