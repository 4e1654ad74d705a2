from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_esn.calibration.patches import choose_positions
from onnx_esn.passes.layerwise.following import find_plain_layers
from onnx_esn.passes.layerwise.geometry import Geometry, find_geometry
from tests.models import MODELS
from tests.oracles.equivalence import run
from tests.passes.layerwise.samples import layer_of, some_images, with_outputs
from tests.passes.tiny import graph, weights


def geometry_of(model: onnx.ModelProto, name: str) -> Geometry:
    found = find_geometry(model, layer_of(model, name))
    assert isinstance(found, Geometry), found
    return found


def check(model: onnx.ModelProto, name: str, batch: int = 3) -> None:
    """Sampled inputs times weights are the layer's sampled outputs, less its bias."""
    geometry = geometry_of(model, name)
    layer = geometry.layer
    images = some_images(model, batch)
    feeds = next(images.batches(batch)).feeds
    names = [n for n in (geometry.data, layer.output) if n not in feeds]
    tensors = feeds | dict(zip(names, run(with_outputs(model, *names), feeds), strict=True))
    x, y = tensors[geometry.data], tensors[layer.output]
    places = geometry.places(y, batch)
    assert places is not None
    at = np.arange(math.prod(places))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    rows = layer.as_filters(stored[layer.weight]).reshape(layer.groups, -1, geometry.features)
    node = model.graph.node[layer.index]
    biased = layer.op != "MatMul" and len(node.input) > 2
    bias = np.broadcast_to(stored[node.input[2]].reshape(-1), layer.filters) if biased else 0.0
    drawn = [choose_positions(0, sample, len(at), (len(at) + 1) // 2) for sample in range(batch)]
    drawn[0] = drawn[0][:0]  # a sample of which nothing is wanted
    together = geometry.inputs_at(x, batch, places, drawn)
    for sample in range(batch):
        none = [at[:0]] * sample
        patches = geometry.inputs_at(x, batch, places, [*none, at])
        first = sum(len(a) for a in drawn[:sample])
        part = together[:, first : first + len(drawn[sample])]
        np.testing.assert_array_equal(part, patches[:, drawn[sample]])
        got = (patches @ rows.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(len(at), -1) + bias
        wanted = geometry.outputs_at(y, batch, sample, at)
        assert wanted.shape == (len(at), layer.filters)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


ONE: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "same upper": ("Conv", (2, 7, 6), (3, 2, 3, 2), {"auto_pad": "SAME_UPPER"}),
    "same lower": ("Conv", (2, 7, 6), (3, 2, 2, 4), {"auto_pad": "SAME_LOWER"}),
    "same upper strided": (
        "Conv", (2, 8, 7), (3, 2, 3, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
    ),
    "same lower strided": (
        "Conv", (2, 8, 7), (3, 2, 5, 2), {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
    ),
    "same where the stride skips": (
        "Conv", (2, 8, 7), (3, 2, 1, 1), {"auto_pad": "SAME_UPPER", "strides": [3, 3]},
    ),
    "valid": ("Conv", (2, 7, 6), (3, 2, 3, 3), {"auto_pad": "VALID", "strides": [2, 1]}),
    "1-D": ("Conv", (3, 12), (4, 3, 3), {"pads": [2, 0], "dilations": [2]}),
    "3-D grouped": ("Conv", (4, 4, 5, 4), (6, 2, 2, 3, 2), {"group": 2, "strides": [2, 1, 2]}),
    "turned, same upper": (
        "ConvTranspose", (2, 4, 5), (2, 3, 3, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ),
    "turned, same lower": (
        "ConvTranspose", (2, 4, 5), (2, 3, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    ),
    "turned, output_shape": (
        "ConvTranspose", (2, 4, 5), (2, 3, 3, 3), {"output_shape": [8, 10], "strides": [2, 2]},
    ),
    "turned, output_padding": (
        "ConvTranspose", (2, 4, 5), (2, 3, 3, 3),
        {"output_padding": [1, 0], "strides": [2, 2], "pads": [1, 0, 1, 2]},
    ),
    "turned, grouped": ("ConvTranspose", (4, 4, 5), (4, 3, 2, 2), {"group": 2, "strides": [2, 3]}),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("biased", [True, False])
def test_convolutions(name: str, biased: bool) -> None:
    op, size, shape, attrs = ONE[name]
    filters = shape[0] if op == "Conv" else shape[1] * attrs.get("group", 1)
    tensors = {"W": weights(*shape)} | ({"b": weights(filters, seed=1)} if biased else {})
    inputs = ["x", *tensors]
    check(graph([(op, inputs, ["y"], attrs)], {"x": ["N", *size]}, tensors), f"{op}_0")


@pytest.mark.parametrize("trans", [0, 1])
def test_gemm(trans: int) -> None:
    tensors = {"W": weights(*((5, 4) if trans else (4, 5))), "b": weights(5, seed=1)}
    nodes = [("Gemm", ["x", "W", "b"], ["y"], {"transB": trans})]
    check(graph(nodes, {"x": ["N", 4]}, tensors), "Gemm_0")


@pytest.mark.parametrize("size", [(), (6,), (2, 3)])
def test_matmul(size: tuple[int, ...]) -> None:
    nodes = [("MatMul", ["x", "W"], ["y"], {})]
    check(graph(nodes, {"x": ["N", *size, 4]}, {"W": weights(4, 5)}), "MatMul_0")


@pytest.mark.parametrize("size", [(), (3,)])
def test_matmul_with_the_weight_left(size: tuple[int, ...]) -> None:
    nodes = [("MatMul", ["W", "x"], ["y"], {})]
    check(graph(nodes, {"x": ["N", *size, 4, 6]}, {"W": weights(5, 4)}), "MatMul_0")


def test_samples_that_a_reshape_merged_with_rows() -> None:
    """Gemm on (N·T, C): the rows of a sample follow each other."""
    nodes = [
        ("Reshape", ["x", "shape"], ["flat"], {}),
        ("Gemm", ["flat", "W"], ["y"], {"transB": 1}),
    ]
    tensors = {"shape": np.array([-1, 4], np.int64), "W": weights(5, 4)}
    check(graph(nodes, {"x": ["N", 6, 4]}, tensors), "Gemm_1")


REFUSED = {
    "stack": ([("MatMul", ["x", "W"], ["y"], {})], (2, 3, 4), (2, 4, 5), "stack of matrices"),
    "left": ([("Gemm", ["W", "x"], ["y"], {})], (6,), (5, 3), "multiplies from the left"),
    "transposed": ([("Gemm", ["x", "W"], ["y"], {"transA": 1})], (6,), (3, 5), "from the left"),
    "alpha": ([("Gemm", ["x", "W"], ["y"], {"alpha": 0.5})], (4,), (4, 5), "alpha"),
    "beta": ([("Gemm", ["x", "W"], ["y"], {"beta": 0.0})], (4,), (4, 5), "beta"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_sampled_says_why(name: str) -> None:
    nodes, size, shape, words = REFUSED[name]
    model = graph(nodes, {"x": [3, *size]}, {"W": weights(*shape)})
    (layer,) = find_plain_layers(model)
    found = find_geometry(model, layer)
    assert isinstance(found, str)
    assert words in found


def test_an_output_that_does_not_follow_the_batch_has_no_places() -> None:
    geometry = geometry_of(MODELS["chain"].build(), "a")
    assert geometry.places(np.zeros((4, 8, 6, 6)), 4) == (6, 6)
    assert geometry.places(np.zeros((8, 8, 6, 6)), 4) is None  # twice as many images as samples
    assert geometry.places(np.zeros((3, 8, 6, 6)), 4) is None
    assert geometry.places(np.zeros((0, 8, 6, 6)), 4) is None


@pytest.mark.parametrize("name", ["chain", "depthwise", "grouped_in_two", "unflatten", "gemm_nt"])
def test_layers_of_whole_graphs(name: str) -> None:
    model = MODELS[name].build()
    for layer in find_plain_layers(model):
        if isinstance(find_geometry(model, layer), Geometry):
            check(model, layer.name)
