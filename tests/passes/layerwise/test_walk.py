from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import onnx_esn
from onnx_esn.calibration import CalibrationSet, input_specs, open_set
from onnx_esn.errors import InferenceError, VerificationError
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.layerwise.solvers import Refit
from onnx_esn.passes.layerwise.statistics import LayerStatistics, Solution, Solver, WalkOptions
from onnx_esn.passes.layerwise.walk import walk
from tests.models import MODELS
from tests.net import Net
from tests.oracles.equivalence import run
from tests.oracles.precision import HALVES, uses
from tests.passes.layerwise.samples import (
    as_it_is,
    layer_names,
    layer_of,
    smooth,
    some_images,
    spoilt,
    stored,
    with_outputs,
    with_values,
)
from tests.passes.tiny import graph, weights

Array = npt.NDArray[Any]
LEAST_SQUARES = Refit((1e-9,))
# No kernels in onnxruntime, or inputs that no set of samples fits.
NOT_RUN = {
    "bfloat_inside", "double_precision", "double_precision_in_every_layer", "two_stage_detector",
}  # fmt: skip


def solve(
    model: onnx.ModelProto,
    reference: onnx.ModelProto,
    images: CalibrationSet,
    solver: Solver = as_it_is,
    **options: Any,
) -> tuple[dict[str, Solution], dict[str, str]]:
    """Solutions, and reasons by name, of all layers."""
    names = layer_names(model)
    found, skipped = walk(model, reference, images, solver, names, WalkOptions(**options))
    reasons = {s.node: s.reason for s in skipped}
    assert len(reasons) == len(skipped)
    assert not found.keys() & reasons.keys()
    assert found.keys() | reasons.keys() == set(names)  # nothing goes lost
    return found, reasons


def filters_of(model: onnx.ModelProto, name: str) -> Array:
    layer = layer_of(model, name)
    return layer.as_filters(stored(model, layer.weight)).astype(np.float64)


@pytest.mark.parametrize("name", sorted(MODELS.keys() - NOT_RUN))
def test_the_reference_itself_stays_as_it_is(name: str) -> None:
    model = standard_form(MODELS[name].build())
    found, reasons = solve(model, model, some_images(model), batch_size=3)
    tolerance = 1e-3 if uses(model, HALVES) else 1e-4
    for layer, solution in found.items():
        assert solution.shift.shape == (layer_of(model, layer).filters,)
        assert np.abs(solution.shift).max() < tolerance, layer
    assert all(reasons.values())


def test_what_a_solver_is_shown() -> None:
    """Moments by brute force from the tensors of the model."""
    model = MODELS["grouped_in_two"].build()
    images = some_images(model, 6)
    seen: dict[str, LayerStatistics] = {}

    def record(statistics: LayerStatistics) -> npt.NDArray[np.float64]:
        seen[statistics.layer.name] = statistics
        return statistics.W

    solve(model, model, images, record, batch_size=4)
    layer = layer_of(model, "g")
    data = model.graph.node[layer.index].input[0]
    feeds = next(images.batches(6)).feeds
    x, y = run(with_outputs(model, data, layer.output), feeds)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.float64)
    for parity in (0, 1):
        rows: list[list[Array]] = [[], []]
        outs = []
        for n in range(parity, 6, 2):
            for i, j in np.ndindex(6, 6):
                window = padded[n, :, i : i + 3, j : j + 3]
                rows[0].append(window[:6].reshape(-1))
                rows[1].append(window[6:].reshape(-1))
                outs.append(y[n, :, i, j])
        half = seen["g"].halves[parity]
        assert half.count == 3 * 36
        out = np.array(outs, np.float64).reshape(-1, 2, 4)
        for g in range(2):
            r = np.array(rows[g])
            np.testing.assert_allclose(half.x_mean[g], r.mean(axis=0), atol=1e-5)
            np.testing.assert_allclose(half.y_mean[g], out[:, g].mean(axis=0), atol=1e-5)
            np.testing.assert_allclose(half.H[g], np.cov(r.T, bias=True), atol=1e-5)
            both = np.cov(np.hstack([out[:, g], r]).T, bias=True)
            np.testing.assert_allclose(half.C[g], both[:4, 4:], atol=1e-5)
            np.testing.assert_allclose(half.yy[g] / 108, out[:, g].var(axis=0), rtol=1e-4)
    variance = seen["g"].reference_variance
    assert variance is not None
    np.testing.assert_allclose(
        variance.reshape(-1), y.transpose(1, 0, 2, 3).reshape(8, -1).var(axis=1), rtol=1e-4
    )


SINGLE: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "conv": ("Conv", (3, 7, 7), (5, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "conv strided": ("Conv", (3, 9, 9), (5, 3, 3, 3),
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "conv 1-D": ("Conv", (3, 20), (5, 3, 3), {"dilations": [2]}),
    "conv 3-D": ("Conv", (2, 4, 5, 5), (3, 2, 2, 2, 2), {}),
    "grouped": ("Conv", (6, 7, 7), (4, 3, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": ("Conv", (4, 7, 7), (8, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "deconv": ("ConvTranspose", (4, 5, 5), (4, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "deconv grouped": ("ConvTranspose", (4, 5, 5), (4, 3, 2, 2), {"group": 2, "strides": [2, 2]}),
    "gemm": ("Gemm", (6,), (6, 4), {}),
    "gemm transposed": ("Gemm", (6,), (4, 6), {"transB": 1, "beta": 0.5}),
    "matmul": ("MatMul", (6,), (6, 4), {}),
    "matmul of rows": ("MatMul", (5, 6), (6, 4), {}),
    "matmul left": ("MatMul", (6, 5), (4, 6), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("biased", [True, False])
def test_a_spoilt_layer_comes_back(name: str, biased: bool) -> None:
    """With sound inputs, least squares finds the weights that made the outputs, and the bias."""
    op, size, shape, attrs = SINGLE[name]
    W = weights(*shape)
    left = name == "matmul left"
    if op == "Conv":
        filters = shape[0]
    elif op == "ConvTranspose":
        filters = shape[1] * attrs.get("group", 1)
    else:
        filters = shape[0] if attrs.get("transB") or left else shape[1]
    inputs = ["W", "x"] if left else ["x", "W"]
    tensors = {"W": W} | ({"b": weights(filters, seed=3)} if biased else {})
    nodes: list[Any] = [(op, [*inputs, *(["b"] if biased else [])], ["y"], attrs)]
    if op == "MatMul" and biased:
        tensors["b"] = tensors["b"][:, None] if left else tensors["b"]
        nodes = [(op, inputs, ["p"], attrs), ("Add", ["p", "b"], ["y"], {})]
    reference = graph(nodes, {"x": ["N", *size]}, tensors)
    images = some_images(reference, 60)
    rng = np.random.default_rng(5)
    model = with_values(reference, lambda n, v: v + 0.5 * rng.normal(size=v.shape))
    found, reasons = solve(model, reference, images, LEAST_SQUARES.target)
    assert not reasons
    (solution,) = found.values()
    (layer_name,) = found
    np.testing.assert_allclose(
        solution.W.reshape(filters, -1), filters_of(reference, layer_name), atol=1e-3
    )
    if biased:  # that of a MatMul is in the Add behind it
        beta = attrs.get("beta", 1.0)
        wrong = stored(model, "b") * beta
        back = wrong + solution.shift.reshape(wrong.shape)
        np.testing.assert_allclose(back, stored(reference, "b") * beta, atol=2e-3)
    else:
        np.testing.assert_allclose(solution.shift, 0, atol=2e-3)


def rebuilt(model: onnx.ModelProto, found: dict[str, Solution]) -> onnx.ModelProto:
    """The model with the solutions' weights, and their shifts in biases that are there already."""
    new: dict[str, Array] = {}
    for name, solution in found.items():
        layer = layer_of(model, name)
        new[layer.weight] = layer.from_filters(solution.W.reshape(layer.filters, -1))
        new[layer.bias] = stored(model, layer.bias) + solution.shift
    return with_values(model, lambda n, v: new.get(n, v))


def convs(bias: bool = True) -> onnx.ModelProto:
    net = Net(3, 8, 8, seed=4)
    y = net.relu(net.conv("x", 3, 8, name="a", bias=bias))
    y = net.relu(net.conv(y, 8, 8, name="b", group=2, bias=bias))
    y = net.relu(net.conv(y, 8, 6, name="c", bias=bias, strides=[2, 2]))
    return net.model(net.head(y, 6))


def test_half_of_the_weights_spoilt_and_mended() -> None:
    """Each layer in turn gets back what it made: then the next one's inputs are sound too."""
    reference = convs()
    model = spoilt(reference, "a", "c")
    images = open_set(smooth(64), input_specs(model))
    found, reasons = solve(model, reference, images, LEAST_SQUARES.target)
    assert not reasons
    held = {"x": smooth(16, seed=9)}
    wanted, before, after = (run(m, held)[0] for m in (reference, model, rebuilt(model, found)))
    assert np.abs(after - wanted).max() < 1e-2 * np.abs(before - wanted).max()


def test_results_do_not_depend_on_the_batch_size_and_repeat() -> None:
    reference = convs()
    model = spoilt(reference, "a", "b", "c")
    images = some_images(model, 23)
    results = [solve(model, reference, images, Refit(), batch_size=n)[0] for n in (32, 1, 5, 32)]
    for name, one in results[0].items():
        for other in results[1:3]:
            np.testing.assert_allclose(other[name].W, one.W, atol=1e-3 * np.abs(one.W).max())
            np.testing.assert_allclose(other[name].shift, one.shift, atol=1e-3)
        again = results[3][name]
        assert (again.W.tobytes(), again.shift.tobytes()) == (one.W.tobytes(), one.shift.tobytes())


def test_seeds_draw_other_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_esn.passes.layerwise.following.FEWEST", 64)
    reference = convs()
    model = spoilt(reference, "a", "b", "c")
    images = some_images(model, 16)
    one, same, other = (
        solve(model, reference, images, Refit(), seed=s, per_weight=1)[0]["b"].W for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_memory_and_threads_change_nothing() -> None:
    reference = convs()
    model = spoilt(reference, "a", "b", "c")
    images = some_images(model, 9)
    one = solve(model, reference, images, Refit(), batch_size=2)[0]
    other = solve(model, reference, images, Refit(), batch_size=2, memory_limit=4096, threads=1)[0]
    for name in one:
        np.testing.assert_allclose(other[name].W, one[name].W, atol=1e-5)


def test_progress_is_told() -> None:
    model = convs()
    told: list[tuple[str, int, int]] = []
    options = {"progress": lambda *x: told.append(x), "batch_size": 4}
    solve(model, model, some_images(model, 10), **options)
    reference = [x[1:] for x in told if x[0] == "reference"]
    assert reference == [(4, 10), (8, 10), (10, 10)]
    layers = [x[1:] for x in told if x[0] == "layers"]
    assert layers == [(i + 1, 4) for i in range(4)]


# Residual streams.


def residual(norm: bool = True) -> onnx.ModelProto:
    net = Net(3, 8, 8, seed=6)
    x = net.relu(net.conv("x", 3, 6, name="a"))
    y = net.relu(net.conv(x, 6, 8, name="b"))
    y = net.conv(y, 8, 6, name="c")
    y = net.bn(y, 6) if norm else y
    return net.model(net.op("Add", y, x, name="sum"))


@pytest.mark.parametrize("norm", [True, False])
def test_a_layer_before_a_sum_mends_what_the_stream_brings(norm: bool) -> None:
    """The stream is scaled by mistake: only a branch that knows of it can bring the sum back."""
    reference = residual(norm)
    model = spoilt(reference, "a", scale=0.15)
    images = open_set(smooth(64), input_specs(model))
    only_c = ["c"]
    gaps = {}
    for streams in (True, False):
        options = WalkOptions(streams=streams)
        found, _ = walk(model, reference, images, LEAST_SQUARES.target, only_c, options)
        held = {"x": smooth(16, seed=3)}
        wanted, got = (run(m, held)[0] for m in (reference, rebuilt(model, found)))
        gaps[streams] = float(((got - wanted) ** 2).mean())
    before = float(((run(model, held)[0] - wanted) ** 2).mean())
    assert gaps[True] < 0.8 * gaps[False]
    assert gaps[True] < 0.8 * before


def test_the_wanted_outputs_behind_a_stream() -> None:
    """y = (z − s − β′)/g, written out for a layer that may choose any bias."""
    reference = residual()
    model = spoilt(reference, "a", scale=0.2)
    images = some_images(model, 8)
    seen: dict[str, LayerStatistics] = {}

    def record(statistics: LayerStatistics) -> npt.NDArray[np.float64]:
        seen[statistics.layer.name] = statistics
        return statistics.W

    walk(model, reference, images, record, ["c"], WalkOptions(batch_size=3))
    feeds = next(images.batches(8)).feeds
    norm = next(n for n in reference.graph.node if n.op_type == "BatchNormalization")
    add = next(n for n in reference.graph.node if n.op_type == "Add")
    (z,) = run(with_outputs(reference, add.output[0]), feeds)
    (s,) = run(with_outputs(model, add.input[1]), feeds)
    gamma, beta, mean, var = (stored(reference, n)[:, None, None] for n in norm.input[1:5])
    gain = gamma / np.sqrt(var + 1e-5)
    y = (z - s - (beta - mean * gain)) / gain
    rows = y.transpose(0, 2, 3, 1).reshape(-1, 6)
    moments = seen["c"].moments
    np.testing.assert_allclose(moments.y_mean[0], rows.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(moments.yy[0] / moments.count, rows.var(axis=0), rtol=1e-3)


def test_a_projection_that_comes_after_the_branch() -> None:
    """As torchvision exports its networks: the shortcut's layer is the last one in the file."""
    model = MODELS["residual_with_projection"].build()
    found, reasons = solve(model, model, some_images(model))
    assert not reasons
    assert all(np.abs(s.shift).max() < 1e-4 for s in found.values())


def test_a_sum_that_broadcasts_is_no_stream() -> None:
    """A channel attention is added to a map: sizes differ, the layer is followed all the same."""
    net = Net(3, 6, 6)
    x = net.relu(net.conv("x", 3, 4, name="a"))
    y = net.conv(net.op("GlobalAveragePool", x), 4, 4, 1, name="b")
    model = net.model(net.op("Add", x, y))
    found, reasons = solve(model, model, some_images(model))
    assert not reasons
    assert found.keys() == {"a", "b"}
    assert np.abs(found["b"].shift).max() < 1e-4


def test_layers_left_out_for_their_batch_do_not_disturb_the_streams() -> None:
    net = Net(3, 6, 6)
    rows = net.reshape("x", -1, 1, 6, 6)  # as many images as channels
    y = net.reshape(net.conv(rows, 1, 1, name="each"), -1, 3, 6, 6)
    y = net.conv(y, 3, 4, name="branch")
    model = net.model(net.op("Add", net.conv("x", 3, 4, name="short"), y))
    found, reasons = solve(model, model, some_images(model))
    assert reasons == {"each": "its output does not follow the batch"}
    assert found.keys() == {"branch", "short"}


# What is not followed.


def test_a_product_whose_samples_are_columns() -> None:
    """W·xᵀ: neither axis of the output is the batch in front, even where the sizes agree."""
    net = Net(4, batch="N")
    y = net.op("MatMul", net.weight(6, 4, fan_in=4), net.op("Transpose", "x"), name="left")
    model = net.model(net.op("Transpose", y))
    for batch_size in (1, 2, 3, 6, 7, 32):
        found, reasons = solve(model, model, some_images(model, 6), batch_size=batch_size)
        assert reasons or np.abs(found["left"].shift).max() < 1e-4


@pytest.mark.parametrize("shape", [(3, 1), (3, 4)])
def test_a_bias_for_each_sample(shape: tuple[int, ...]) -> None:
    """Gemm may add a whole matrix: that is no bias of the filters."""
    tensors = {"W": weights(5, 4), "b": weights(*shape, seed=1)}
    model = graph([("Gemm", ["x", "W", "b"], ["y"], {})], {"x": [3, 5]}, tensors)
    found, reasons = solve(model, model, some_images(model, 6))
    assert not found
    assert list(reasons) == ["Gemm_0"]


def test_layers_that_no_name_asks_for_are_not_touched() -> None:
    model = convs()
    images = some_images(model)
    found, skipped = walk(spoilt(model, "a"), model, images, Refit(), ["b"])
    assert found.keys() == {"b"}
    assert not skipped
    assert walk(model, model, images, Refit(), []) == ({}, [])


def test_names_that_are_no_layer_are_reported() -> None:
    model = MODELS["einsum_as_pointwise_conv"].build()
    _, skipped = walk(model, model, some_images(model), as_it_is, ["a", "e"])
    assert [s.node for s in skipped] == ["e"]
    assert skipped[0].reason


def test_a_reference_without_the_layer_or_with_others_filters() -> None:
    model = convs()
    images = some_images(model)
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    renamed.graph.node[0].name = "z"
    _, reasons = solve(model, renamed, images)
    assert reasons == {"a": "the reference has no such layer"}
    net = Net(3, 8, 8, seed=4)
    y = net.relu(net.conv("x", 3, 10, name="a"))
    y = net.relu(net.conv(y, 10, 8, name="b", group=2))
    wider = net.model(net.head(net.relu(net.conv(y, 8, 6, name="c", strides=[2, 2])), 6))
    _, reasons = solve(model, wider, images)
    assert reasons.keys() == {"a"}
    assert "not recorded" in reasons["a"]


# Sets of samples.


@pytest.mark.parametrize("count", [3, 4, 7])
def test_the_padding_of_a_fixed_batch_is_not_learned_from(count: int) -> None:
    """The same samples with a dynamic batch, which needs no padding, say what is right."""

    def build(batch: int | str) -> onnx.ModelProto:
        net = Net(3, 6, 6, batch=batch)
        y = net.relu(net.conv("x", 3, 4, name="a"))
        return net.model(net.head(net.relu(net.conv(y, 4, 4, name="b")), 4))

    fixed, free = build(3), build("N")
    x = smooth(count, size=6)
    results = []
    for reference in (fixed, free):
        images = open_set(x, input_specs(reference))
        model = spoilt(reference, "a", "b")
        results.append(solve(model, reference, images, Refit(), batch_size=2)[0])
    for name, one in results[0].items():
        np.testing.assert_allclose(one.W, results[1][name].W, atol=1e-3)
        np.testing.assert_allclose(one.shift, results[1][name].shift, atol=1e-3)


def test_several_inputs() -> None:
    net = Net(3, 6, 6)
    net.input("u", "N", 5)
    y = net.op("GlobalAveragePool", net.relu(net.conv("x", 3, 4, name="a")))
    z = net.gemm("u", 5, 4, name="g")
    y = net.op("Add", net.op("Flatten", y), net.relu(z))
    reference = net.model(net.gemm(y, 4, 3, name="h"))
    model = spoilt(reference, "a", "g")
    images = some_images(model, 40)
    found, reasons = solve(model, reference, images, LEAST_SQUARES.target)
    assert not reasons
    for name in ("a", "g"):
        wanted = filters_of(reference, name)
        np.testing.assert_allclose(found[name].W.reshape(wanted.shape), wanted, atol=1e-3)


def test_one_image_teaches_nothing_that_cannot_be_judged() -> None:
    reference = convs()
    model = spoilt(reference, "a")
    found, _ = solve(model, reference, some_images(model, 1), Refit().target)
    np.testing.assert_allclose(
        found["a"].W.reshape(8, -1), filters_of(model, "a"), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("where", ["model", "reference", "solver"])
def test_values_that_are_not_finite_name_the_layer(where: str) -> None:
    model = convs()
    images = some_images(model)
    bad = with_values(model, lambda n, v: np.full_like(v, np.inf) if n == "b.weight" else v)
    pair = {"model": (bad, model), "reference": (model, bad), "solver": (model, model)}[where]

    def solver(statistics: LayerStatistics) -> npt.NDArray[np.float64]:
        broken = where == "solver" and statistics.layer.name == "b"
        return statistics.W * np.nan if broken else statistics.W

    error = InferenceError if where == "reference" else VerificationError
    names = ["a", "c"] if where == "model" else ["a", "b", "c"]
    with pytest.raises(error, match="'?c'?:" if where == "model" else "b"):
        walk(*pair, images, solver, names)


def test_the_models_are_not_changed() -> None:
    reference = convs()
    model = spoilt(reference, "a", "b")
    before = model.SerializeToString(), reference.SerializeToString()
    solve(model, reference, some_images(model), Refit())
    assert (model.SerializeToString(), reference.SerializeToString()) == before


def test_values_beyond_half_precision_name_the_layer() -> None:
    net = Net(3, 6, 6, dtype=np.float16)
    y = net.relu(net.conv("x", 3, 4, name="a"))
    model = net.model(net.head(net.conv(y, 4, 4, name="b"), 4))

    def solver(statistics: LayerStatistics) -> npt.NDArray[np.float64]:
        return statistics.W * (1e9 if statistics.layer.name == "b" else 1.0)

    with pytest.raises(VerificationError, match="b: the correction is not finite in float16"):
        walk(model, model, some_images(model), solver, ["a", "b"])


def test_too_many_inputs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Gemm behind a large map: its moments would take gigabytes, and hours."""
    monkeypatch.setattr("onnx_esn.passes.layerwise.following.MOST_INPUTS", 40)
    net = Net(3, 6, 6)
    y = net.conv(net.conv("x", 3, 4, name="a"), 4, 6, name="b")
    model = net.model(net.conv(y, 6, 4, name="c"))
    found, reasons = solve(model, model, some_images(model))
    assert found.keys() == {"a", "b"}
    assert "54 inputs" in reasons["c"]


@pytest.mark.parametrize("method", ["signal-norm", "reconstruction"])
def test_a_product_along_positions_behind_channels_that_went(method: str) -> None:
    """It has a row for each channel: other positions than in the reference."""
    net = Net(3, 16, 16, seed=2)
    x = net.op("Relu", net.conv("x", 3, 16))
    x = net.op("Relu", net.linear(x, 16, 16))
    model = net.model(net.conv(x, 16, 5, k=1))
    array = np.random.default_rng(0).normal(size=(12, 3, 16, 16)).astype(np.float32)
    done = onnx_esn.prune(model, target_macs="70%", criterion=method, images=array)
    assert done.modified
    notes = {s.node: s.reason for s in done.skipped}
    (mixing,) = [n.name for n in model.graph.node if n.op_type == "MatMul"]
    assert notes[mixing] == "not refitted: the reference has it at other positions"
    assert [r for r in notes.values() if r.startswith("not refitted")] == [notes[mixing]]
