from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_esn.graph.constants import Constants
from onnx_esn.passes.layerwise.following import find_plain_layers
from onnx_esn.passes.layerwise.geometry import Geometry, find_geometry
from onnx_esn.passes.layerwise.working_copy import with_own_weights
from tests.models import MODELS
from tests.net import feeds_for
from tests.oracles.equivalence import relative_difference, run, sizes_of, tolerance
from tests.passes.layerwise.samples import with_outputs, with_values
from tests.passes.tiny import graph, weights


def copied(model: onnx.ModelProto):
    constants = Constants(model)
    layers = [x for x in find_plain_layers(model) if isinstance(find_geometry(model, x), Geometry)]
    layers = [x for x in layers if not x.bias or x.bias in constants]
    return layers, *with_own_weights(model, constants, layers)


@pytest.mark.parametrize("name", MODELS)
def test_the_copy_computes_the_same(name: str) -> None:
    model = MODELS[name].build()
    if model.graph.sparse_initializer or "double" in name or "bfloat" in name:
        pytest.skip("onnxruntime has no such kernels")
    before = model.SerializeToString()
    layers, copy, slots = copied(model)
    assert list(slots) == [x.name for x in layers]
    feeds = feeds_for(model, sizes_of(model))
    try:
        wanted = run(model, feeds)
    except Exception as error:  # a graph that does not run says nothing here
        pytest.skip(str(error)[:60])
    assert relative_difference(wanted, run(copy, feeds)) <= 10 * tolerance(model)
    assert model.SerializeToString() == before
    for name in (name for slot in slots.values() for name in (slot.weight, slot.bias)):
        assert sum(name in node.input for node in copy.graph.node) == 1


LAYERS = {
    "conv": ("Conv", ["x", "W", "b"], (3, 5, 5), (4, 3, 3, 3), {}),
    "conv without bias": ("Conv", ["x", "W"], (3, 5, 5), (4, 3, 3, 3), {}),
    "deconv": ("ConvTranspose", ["x", "W", "b"], (4, 3, 3), (4, 2, 2, 2), {"group": 2}),
    "gemm": ("Gemm", ["x", "W", "b"], (3,), (3, 4), {"beta": 0.5}),
    "gemm turned": ("Gemm", ["x", "W"], (3,), (4, 3), {"transB": 1, "beta": 2.0}),
    "matmul": ("MatMul", ["x", "W"], (5, 3), (3, 4), {}),
    "matmul left": ("MatMul", ["W", "x"], (3, 5), (4, 3), {}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_new_values_do_what_they_say(name: str) -> None:
    op, inputs, size, shape, attrs = LAYERS[name]
    tensors = {"W": weights(*shape)} | ({"b": weights(4, seed=1)} if "b" in inputs else {})
    model = graph([(op, inputs, ["y"], attrs)], {"x": ["N", *size]}, tensors)
    (layer,), copy, slots = copied(model)
    slot = slots[layer.name]
    rows = layer.as_filters(tensors["W"]).astype(np.float64)
    shift = np.array([1.0, -2.0, 3.0, 0.5])
    values = slot.values(layer, 2.0 * rows, shift)
    changed = with_values(copy, lambda n, old: values.get(n, old))
    feeds = feeds_for(model, {"x": (2, *size)})
    # Twice the weights, and the bias as it was: the outputs less the bias are doubled.
    bias = attrs.get("beta", 1.0) * tensors["b"] if "b" in tensors else np.zeros(4)
    axis = 2 if name == "matmul" else 1
    y = np.moveaxis(run(model, feeds)[0], axis, -1)
    got = np.moveaxis(run(changed, feeds)[0], axis, -1)
    np.testing.assert_allclose(got, 2 * (y - bias) + bias + shift, rtol=1e-4, atol=1e-4)
    (same,) = run(with_outputs(copy, "y"), feeds)
    np.testing.assert_allclose(np.moveaxis(same, axis, -1), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 1), (1, 4)])
def test_biases_of_gemm_of_every_shape(shape: tuple[int, ...]) -> None:
    tensors = {"W": weights(3, 4), "b": weights(*shape) if shape else np.array(0.5, np.float32)}
    model = graph([("Gemm", ["x", "W", "b"], ["y"], {})], {"x": ["N", 3]}, tensors)
    _, copy, _ = copied(model)
    feeds = feeds_for(model, {"x": (2, 3)})
    assert relative_difference(run(model, feeds), run(copy, feeds)) < 1e-6
