"""Learning: what it keeps, what it refuses, and that it really learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_esn.errors import OperationError, OptionError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import find_layers
from onnx_esn.graph.weights import read_weight
from onnx_esn.passes.correcting.output_divergence import output_divergences
from onnx_esn.passes.learning.float_layers import LearnWeights
from onnx_esn.passes.learning.options import LearnOptions
from onnx_esn.passes.learning.quantized_weights import LearnQuantization
from onnx_esn.passes.learning.variations import varied
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.quantizing.compensation import Compensate
from onnx_esn.passes.quantizing.quantization import Quantize
from tests.net import Net
from tests.passes.quantizing.test_compensation import images_for, network

FEW = LearnOptions(epochs=6, block_epochs=2, batch_size=8, vary=False)


def planned(model, images, bits):
    plain = Quantize(bits=bits)(model)
    return Compensate(plain.plan, images)(model)


@pytest.mark.parametrize("norm", [True, False])
def test_learned_codes_agree_better_and_lie_on_the_grid(norm):
    model = network(norm)
    images, held = images_for(model, 48), images_for(model, 24, seed=9)
    start = planned(model, images, 1)
    result = LearnQuantization(start.plan, images, held, options=FEW)(model)
    assert result.details["accepted"]
    before, after = output_divergences(model, [start.model, result.model], held)
    assert after < before
    assert result.details["divergence_before"] == pytest.approx(before)
    assert result.details["divergence_after"] == pytest.approx(after)
    constants = Constants(result.model)
    for layer in find_layers(result.model, constants, Facts(sizes={})):
        weight = read_weight(layer, constants)
        assert weight.codes is not None
        assert weight.filter_bits.max() <= 1


def test_the_plan_makes_the_same_bytes():
    model = network()
    images = images_for(model, 32)
    start = planned(model, images, 2)
    result = LearnQuantization(start.plan, images, None, options=FEW)(model)
    assert result.modified
    again = Quantize(plan=result.plan)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()
    twice = LearnQuantization(start.plan, images, None, options=FEW)(model)
    assert twice.model.SerializeToString() == result.model.SerializeToString()
    other = LearnQuantization(start.plan, images, None, options=replace(FEW, seed=1))(model)
    assert other.model.SerializeToString() != result.model.SerializeToString()


def test_what_agrees_worse_is_not_kept():
    model = network()
    images, held = images_for(model, 32), images_for(model, 24, seed=9)
    start = planned(model, images, 4)
    wild = replace(FEW, rate=1.0, epochs=1)
    result = LearnQuantization(start.plan, images, held, options=wild)(model)
    assert not result.details["accepted"]
    assert result.plan == start.plan
    assert result.model.SerializeToString() == start.model.SerializeToString()


def test_float_weights_of_a_pruned_model_come_closer():
    model = network()
    images, held = images_for(model, 48), images_for(model, 24, seed=9)
    pruned = Prune(ratio=0.3)(model).model
    options = replace(FEW, epochs=10, rate=0.01)
    result = LearnWeights(images, model, options=options)(pruned)
    assert result.details["accepted"]
    before, after = output_divergences(model, [pruned, result.model], held)
    assert after < 0.9 * before


def test_without_images_to_judge_it_is_kept_and_said():
    model = network()
    images = images_for(model, 6)
    result = LearnWeights(images, model, options=replace(FEW, epochs=1))(
        Prune(ratio=0.3)(model).model
    )
    assert result.details["accepted"]
    assert result.details["divergence_after"] is None
    assert result.details["held_out_images"] == 0


def test_half_precision_is_named_and_left():
    model = network(dtype=np.float16)
    images = images_for(model, 16)
    plan = Quantize(bits=2)(model).plan
    with pytest.raises(OperationError, match="no layer can be learned"):
        LearnQuantization(plan, images, None, options=FEW)(model)


def test_shared_weights_stay():
    net = Net(3, 8, 8)
    y = net.conv_bn_relu("x", 3, 4, name="a")
    w = net.weight(4, 4, 3, 3, fan_in=36)
    for name in ("b", "c"):
        y = net.relu(net.op("Conv", y, w, name=name, pads=[1, 1, 1, 1]))
    model = net.model(net.head(y, 4, 5))
    images = images_for(model, 16)
    plan = planned(model, images, 2).plan
    result = LearnQuantization(plan, images, None, options=FEW)(model)
    reasons = {s.node: s.reason for s in result.skipped}
    assert "shared by several layers" in reasons["b"]
    assert result.details["learned_layers"] == 2


@pytest.mark.parametrize(("options", "what"), [({"epochs": 0}, "epochs"), ({"rate": 0.0}, "rate")])
def test_options_that_make_no_sense(options, what):
    with pytest.raises(OptionError, match=what):
        LearnOptions(**options)


def test_variations_keep_shape_type_and_range():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 2, (6, 3, 20, 30)).astype(np.float32)
    y = varied(x, rng)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.min() >= x.min()
    assert y.max() <= x.max()
    assert not np.array_equal(x, y)
    vector = rng.normal(size=(6, 10)).astype(np.float32)
    assert varied(vector, rng) is vector


def test_bits_taken_away_one_by_one_end_at_the_plans_own():
    model = network()
    images = images_for(model, 32)
    start = planned(model, images, 2)
    options = replace(FEW, block_epochs=0, epochs=3, start_bits=4)
    result = LearnQuantization(start.plan, images, None, options=options)(model)
    assert max(b for entry in result.plan.layers for b in entry.bits) == 2
    again = Quantize(plan=result.plan)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()
    straight = LearnQuantization(
        start.plan, images, None, options=replace(options, start_bits=None)
    )(model)
    assert straight.plan != result.plan
    (apart,) = output_divergences(model, [result.model], images)
    (nearest,) = output_divergences(model, [Quantize(bits=2)(model).model], images)
    assert apart < nearest


def test_only_more_than_one_bit_can_be_taken_away():
    with pytest.raises(OptionError, match="start with 1 bits"):
        LearnOptions(start_bits=1)
