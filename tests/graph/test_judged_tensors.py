"""Outputs that jump, and what they are judged by."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_esn.calibration import Session
from onnx_esn.calibration.tensor_spec import input_specs
from onnx_esn.graph.judged_tensors import judged_beside, judged_tensors
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


@pytest.mark.parametrize("name", ["non_maximum_suppression", "fully_convolutional_net"])
def test_a_budget_is_met_where_outputs_jump(name):
    from onnx_esn.calibration import open_set

    model = MODELS[name].build()
    rng = np.random.default_rng(0)
    feeds = feeds_for(model, sizes_of(model))
    data = {k: rng.normal(size=(20, *v.shape[1:])).astype(v.dtype) for k, v in feeds.items()}
    images = open_set(data, input_specs(model))
    step = CompensatedQuantization(images, target_cost="12%", prune=True)
    found = step(model)
    trials = found.details["trials"]
    assert all(0 < t["divergence"] < np.inf for t in trials)
