from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_esn.errors import VerificationError
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.quantizing.shifting import shift_outputs
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import run, sizes_of
from tests.passes.layerwise.samples import layer_names, layer_of, stored, with_outputs
from tests.passes.tiny import graph, weights

SHIFT = np.array([1.0, -2.0, 0.0, 0.5])
# Operator, inputs, size of a sample, shape of the weight, attributes, axis of the filters.
LAYERS: dict[str, tuple[str, list[str], tuple[int, ...], tuple[int, ...], dict[str, Any], int]] = {
    "conv": ("Conv", ["x", "W", "b"], (3, 5, 5), (4, 3, 3, 3), {}, 1),
    "conv without bias": ("Conv", ["x", "W"], (3, 5, 5), (4, 3, 3, 3), {}, 1),
    "conv with an empty bias": ("Conv", ["x", "W", ""], (3, 5, 5), (4, 3, 3, 3), {}, 1),
    "conv 1-D": ("Conv", ["x", "W"], (3, 9), (4, 3, 3), {}, 1),
    "deconv": ("ConvTranspose", ["x", "W", "b"], (4, 3, 3), (4, 2, 2, 2), {"group": 2}, 1),
    "gemm": ("Gemm", ["x", "W", "b"], (3,), (3, 4), {}, 1),
    "gemm scaled": (
        "Gemm", ["x", "W", "b"], (3,), (4, 3), {"alpha": 0.3, "beta": 2.5, "transB": 1}, 1,
    ),
    "gemm without bias": ("Gemm", ["x", "W"], (3,), (3, 4), {"beta": 0.5}, 1),
    "gemm that ignores its bias": ("Gemm", ["x", "W", "b"], (3,), (3, 4), {"beta": 0.0}, 1),
    "matmul": ("MatMul", ["x", "W"], (3,), (3, 4), {}, -1),
    "matmul of rows": ("MatMul", ["x", "W"], (5, 3), (3, 4), {}, -1),
    "matmul left": ("MatMul", ["W", "x"], (3, 5), (4, 3), {}, -2),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_move_by_exactly_the_shift(name: str) -> None:
    op, inputs, size, shape, attrs, axis = LAYERS[name]
    tensors = {"W": weights(*shape)} | ({"b": weights(4, seed=1)} if "b" in inputs else {})
    model = graph([(op, inputs, ["y"], attrs)], {"x": ["N", *size]}, tensors)
    before = model.SerializeToString()
    result = shift_outputs(model, {f"{op}_0": SHIFT})
    onnx.checker.check_model(result, full_check=True)
    assert model.SerializeToString() == before
    assert len(result.graph.node) == 1 + (op == "MatMul")
    feeds = feeds_for(model, {"x": (2, *size)})
    moved = run(result, feeds)[0] - run(model, feeds)[0]
    np.testing.assert_allclose(
        np.moveaxis(moved, axis, -1), np.broadcast_to(SHIFT, np.moveaxis(moved, axis, -1).shape),
        atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 4), (2, 1), (2, 4)])
def test_biases_of_gemm_of_every_shape(shape: tuple[int, ...]) -> None:
    tensors = {"W": weights(3, 4), "b": weights(*shape) if shape else np.array(0.5, np.float32)}
    model = graph([("Gemm", ["x", "W", "b"], ["y"], {})], {"x": [2, 3]}, tensors)
    result = shift_outputs(model, {"Gemm_0": SHIFT})
    feeds = feeds_for(model, {"x": (2, 3)})
    moved = run(result, feeds)[0] - run(model, feeds)[0]
    np.testing.assert_allclose(moved, np.broadcast_to(SHIFT, (2, 4)), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_running_mean_behind_takes_it(dtype: type) -> None:
    net = Net(3, 6, 6, dtype=dtype)
    model = net.model(net.bn(net.conv("x", 3, 4, name="a"), 4))
    result = shift_outputs(model, {"a": SHIFT})
    assert len(result.graph.node) == 2
    conv, norm = model.graph.node
    for name in (*conv.input[1:], norm.input[1], norm.input[2], norm.input[4]):
        np.testing.assert_array_equal(stored(result, name), stored(model, name))
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    gain = stored(model, norm.input[1]) / np.sqrt(stored(model, norm.input[4]) + 1e-5)
    moved = (run(result, feeds)[0] - run(model, feeds)[0]).transpose(0, 2, 3, 1)
    assert result.graph.output[0].type == model.graph.output[0].type
    tolerance = 1e-5 if dtype is np.float32 else 2e-2
    np.testing.assert_allclose(moved, np.broadcast_to(gain * SHIFT, moved.shape), atol=tolerance)


@pytest.mark.parametrize("which", [("a",), ("b",), ("a", "b")])
def test_statistics_that_two_norms_share(which: tuple[str, ...]) -> None:
    """Exporters store equal vectors once: the other layer must not move along."""
    net = Net(3, 6, 6)
    one, other = net.conv("x", 3, 4, name="a"), net.conv("x", 3, 4, name="b")
    vectors = [net.vector(4, low=0.5, high=1.5) for _ in range(4)]
    tops = [net.op("BatchNormalization", y, *vectors) for y in (one, other)]
    model = net.model(*tops)
    shifts = {"a": SHIFT, "b": -3.0 * SHIFT}
    result = shift_outputs(model, {name: shifts[name] for name in which})
    onnx.checker.check_model(result, full_check=True)
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    gain = stored(model, vectors[0]) / np.sqrt(stored(model, vectors[3]) + 1e-5)
    for name, y, moved in zip("ab", run(model, feeds), run(result, feeds), strict=True):
        wanted = gain * shifts[name] if name in which else np.zeros(4)
        np.testing.assert_allclose((moved - y)[0, :, 0, 0], wanted, atol=1e-5)


def test_a_norm_that_does_not_read_alone_stays() -> None:
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 4, name="a")
    model = net.model(net.bn(y, 4), net.relu(y))
    result = shift_outputs(model, {"a": SHIFT})
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    (before,), (after,) = (run(with_outputs(m, y), feeds) for m in (model, result))
    np.testing.assert_allclose((after - before)[0, :, 0, 0], SHIFT, atol=1e-5)
    norm = next(n for n in model.graph.node if n.op_type == "BatchNormalization")
    np.testing.assert_array_equal(stored(result, norm.input[3]), stored(model, norm.input[3]))


def test_a_bias_that_two_layers_share() -> None:
    net = Net(3, 6, 6)
    one = net.conv("x", 3, 4, name="a")
    other = net.conv("x", 3, 4, name="b")
    net.nodes[1].input[2] = net.nodes[0].input[2]
    model = net.model(one, other)
    result = shift_outputs(model, {"b": SHIFT})
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    before, after = run(model, feeds), run(result, feeds)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_allclose((after[1] - before[1])[0, :, 0, 0], SHIFT, atol=1e-5)


def test_no_shift_changes_nothing() -> None:
    model = MODELS["chain_with_batchnorm"].build()
    for shifts in ({}, {"a": np.zeros(8)}, {"nobody": SHIFT}):
        assert shift_outputs(model, shifts).SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("name", ["chain", "residual", "depthwise", "gemm_chain", "unflatten",
    "matmul_and_add", "matmul_with_the_weight_left", "pre_activation", "tied_batchnorm_vectors",
    "siamese", "initializers_are_inputs", "tied_zero_biases"])  # fmt: skip
def test_back_and_forth_is_nothing(name: str) -> None:
    model = standard_form(MODELS[name].build())
    rng = np.random.default_rng(0)
    shifts = {n: rng.normal(size=layer_of(model, n).filters) for n in layer_names(model)}
    there = shift_outputs(model, shifts)
    onnx.checker.check_model(there, full_check=True)
    back = shift_outputs(there, {n: -v for n, v in shifts.items()})
    feeds = feeds_for(model, sizes_of(model))
    before, moved, after = (run(m, feeds) for m in (model, there, back))
    assert any(np.abs(a - b).max() > 1e-2 for a, b in zip(before, moved, strict=True))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4)


@pytest.mark.parametrize("norm", [True, False])
def test_values_beyond_half_precision_are_refused(norm: bool) -> None:
    net = Net(3, 6, 6, dtype=np.float16)
    y = net.conv("x", 3, 4, name="a")
    model = net.model(net.bn(y, 4) if norm else y)
    with pytest.raises(VerificationError, match="not finite"):
        shift_outputs(model, {"a": 1e6 * SHIFT})
