from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from onnx_esn.calibration.patches import choose_positions
from onnx_esn.errors import InferenceError
from onnx_esn.passes.layerwise.geometry import Geometry, find_geometry
from onnx_esn.passes.layerwise.sampling import Wanted, sample_layers
from tests.models import MODELS
from tests.net import Net
from tests.oracles.equivalence import run
from tests.passes.layerwise.samples import layer_of, some_images, with_outputs, with_values


def wanted(
    model: onnx.ModelProto,
    name: str,
    rows: int,
    *more: str,
) -> Wanted:
    geometry = find_geometry(model, layer_of(model, name))
    assert isinstance(geometry, Geometry)
    return Wanted(geometry, rows, (layer_of(model, name).output, *more))


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_rows_are_those_of_the_tensors(batch_size: int) -> None:
    model = MODELS["residual"].build()
    total = next(n.output[0] for n in model.graph.node if n.op_type == "Add")
    images = some_images(model, 7)
    asked = {"c": wanted(model, "c", 10, total)}
    taken = sample_layers(model, asked, images, seed=3, batch_size=batch_size)["c"]
    names = [layer_of(model, "c").output, total]
    tensors = run(with_outputs(model, *names), next(images.batches(7)).feeds)
    assert taken.places == (6, 6)
    assert len(taken.at) == 7
    for sample, at in enumerate(taken.at):
        np.testing.assert_array_equal(at, choose_positions(3, sample, 36, 10))
        for name, tensor in zip(names, tensors, strict=True):
            rows = tensor[sample].reshape(8, 36)[:, at].T
            np.testing.assert_allclose(taken.outputs[name][sample], rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_padding_of_a_fixed_batch_is_left_out(count: int) -> None:
    model = MODELS["fixed_batch_of_three"].build()
    images = some_images(model, count)
    taken = sample_layers(model, {"a": wanted(model, "a", 4)}, images, seed=0, batch_size=2)
    assert len(taken["a"].at) == count
    assert math.prod(taken["a"].places) >= 4


def test_a_tensor_of_another_size_is_no_sum_of_the_layer() -> None:
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 4, name="a")
    other = net.op("GlobalAveragePool", y)
    model = net.model(y, other)
    asked = {"a": wanted(model, "a", 5, other)}
    taken = sample_layers(model, asked, some_images(model, 3), seed=0, batch_size=2)["a"]
    assert list(taken.outputs) == [y]
    assert len(taken.outputs[y]) == 3


def test_progress_and_values_that_are_not_finite() -> None:
    model = MODELS["chain"].build()
    told: list[tuple[int, int]] = []
    images = some_images(model, 5)
    asked = {"a": wanted(model, "a", 4)}
    sample_layers(model, asked, images, seed=0, batch_size=2, progress=lambda *x: told.append(x))
    assert told == [(2, 5), (4, 5), (5, 5)]
    bad = with_values(model, lambda n, v: np.full_like(v, np.nan) if n == "a.weight" else v)
    with pytest.raises(InferenceError):
        sample_layers(bad, asked, images, seed=0, batch_size=2)
