from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import onnx_esn
from onnx_esn.cli import cli
from onnx_esn.errors import OptionError, PlanError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.equalizing.equalization import Equalize
from onnx_esn.passes.equalizing.layer_rules import SCALING_ALL
from onnx_esn.passes.equalizing.rewriting import of_filters, rescaled
from onnx_esn.passes.equalizing.scalable import Scalable, find_scalable
from onnx_esn.passes.layerwise.following import find_plain_layers
from onnx_esn.passes.quantizing.quantization import Quantize
from tests.graph.random_graphs import random_model
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import relative_difference, run, run_reference, sizes_of
from tests.oracles.precision import HALVES, uses
from tests.passes.layerwise.samples import layer_of
from tests.passes.tiny import graph, weights
from tests.runtime import NEWEST

Array = npt.NDArray[Any]


def drawn(s: Scalable, seed: int = 0) -> npt.NDArray[np.float64]:
    """A random power of two for each channel that can be scaled, by label."""
    octaves = np.random.default_rng(seed).integers(-3, 4, len(s.classes)).astype(np.float64)
    octaves[np.flatnonzero(s.classes.locked)] = 0.0
    return np.append(2.0**octaves, 1.0)[s.classes.of] if octaves.size else np.ones(1)


def spread(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The same outputs from channels of very different sizes: what equalisation undoes."""
    s = find_scalable(model, SCALING_ALL)
    return rescaled(s, drawn(s, seed))


def same(a: onnx.ModelProto, b: onnx.ModelProto, seed: int = 0) -> None:
    """Equal to the last bit: powers of two do not round."""
    onnx.checker.check_model(b, full_check=True)
    feeds = feeds_for(a, sizes_of(a), seed)
    for x, y in zip(run(a, feeds), run(b, feeds), strict=True):
        np.testing.assert_array_equal(x, y)


def close(a: onnx.ModelProto, b: onnx.ModelProto) -> None:
    onnx.checker.check_model(b, full_check=True)
    feeds = feeds_for(a, sizes_of(a))
    assert relative_difference(run(a, feeds), run(b, feeds)) < 2e-6


def equalized(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    return Equalize(**options)(model).model


# Whatever factors are drawn, the outputs stay what they are.


@pytest.mark.parametrize("name", MODELS)
def test_outputs_do_not_depend_on_the_factors(name: str) -> None:
    model = standard_form(MODELS[name].build())
    before = model.SerializeToString()
    s = find_scalable(model, SCALING_ALL)
    result = rescaled(s, drawn(s))
    assert model.SerializeToString() == before
    if result != model:
        same(model, result)


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_outputs_of_random_graphs(seed: int) -> None:
    model = standard_form(random_model(random.Random(seed)))
    s = find_scalable(model, SCALING_ALL)
    result = rescaled(s, drawn(s, seed))
    try:
        feeds = feeds_for(model, sizes_of(model))
        expected = run(model, feeds)
    except Exception:  # sizes that this graph refuses
        return
    operators = {n.op_type for n in model.graph.node}
    if "BatchNormalization" in operators and uses(model, (TensorProto.DOUBLE,)):
        return  # left to the reference, which before opset 14 mixes the batch's statistics in
    # Factors that are drawn may take half precision to where numbers get fewer digits.
    limit = 1e-3 if uses(model, HALVES) else 1e-6
    assert relative_difference(expected, run(result, feeds)) < limit


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21, NEWEST])
def test_every_opset_and_both_runtimes(opset: int) -> None:
    net = Net(3, 6, 6, opset=opset)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.conv(y, 8, 8, group=8, name="d"))
    model = net.model(net.head(net.conv(y, 8, 6, 1, name="b"), 6))
    result = equalized(spread(model))
    close(model, result)
    feeds = feeds_for(model, sizes_of(model))
    assert relative_difference(run_reference(model, feeds), run_reference(result, feeds)) < 2e-6


# What it does to the weights.


def chain(dtype: type = np.float32, **options: Any) -> onnx.ModelProto:
    net = Net(3, 6, 6, dtype=dtype, **options)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.op("GlobalAveragePool", net.relu(net.conv(y, 8, 6, name="b")))
    return net.model(net.gemm(net.op("Flatten", y), 6, 3, name="fc"))


def test_input_channels_of_a_layer_come_to_one_size() -> None:
    """With one filter its importance does not matter."""
    model = graph(
        [
            ("Conv", ["x", "V"], ["a"], {}),
            ("Relu", ["a"], ["b"], {}),
            ("Conv", ["b", "W"], ["y"], {}),
        ],
        {"x": ["N", 3, 4, 4]},
        {"V": weights(8, 3, 1, 1), "W": weights(1, 8, 1, 1)},
    )
    result = equalized(model)
    sizes = np.abs(weight(result, "Conv_2")).reshape(-1)
    assert np.ptp(np.log2(np.abs(weight(model, "Conv_2")))) > 2
    assert np.ptp(np.log2(sizes)) < 2.0**-6
    close(model, result)
    assert [n.name for n in result.graph.node] == [n.name for n in model.graph.node]
    assert [t.name for t in result.graph.initializer] == [t.name for t in model.graph.initializer]


@pytest.mark.parametrize(
    "name",
    ["chain", "chain_with_batchnorm", "depthwise", "grouped_in_two"],
)
def test_it_does_not_matter_how_channels_were_scaled_before(name: str) -> None:
    """One reader for each channel; several agree on what depends on their median channels."""
    model = standard_form(MODELS[name].build())
    wanted = equalized(model)
    found = equalized(spread(model, 1))
    for layer in find_plain_layers(wanted):
        a, b = (layer.as_filters(weight(m, layer.name)).astype(np.float64) for m in (wanted, found))
        # Each layer as a whole, and each filter, may have got another size.
        ratio = np.sqrt(np.square(b).sum(axis=1) / np.square(a).sum(axis=1))
        np.testing.assert_allclose(b / ratio[:, None], a, rtol=0.03, atol=1e-6)


def weight(model: onnx.ModelProto, name: str) -> Array:
    return Constants(model).value(layer_of(model, name).weight)


def test_groups_are_normalised_each_for_itself() -> None:
    """A group of large weights asks for no larger inputs than one of small weights."""
    net = Net(4, 5, 5)
    y = net.relu(net.conv("x", 4, 8, 1, name="a"))
    model = net.model(net.head(net.conv(y, 8, 6, 1, group=2, name="g"), 6))
    scales = np.array(Equalize()(model).details["scales"]["a"])
    tensor = next(t for t in model.graph.initializer if t.name == "g.weight")
    W = numpy_helper.to_array(tensor).copy()
    W[:3] *= 16
    tensor.CopyFrom(numpy_helper.from_array(W, "g.weight"))
    assert Equalize()(model).details["scales"]["a"] == scales.tolist()
    W[:, 0] *= 16  # the first channel of each group
    tensor.CopyFrom(numpy_helper.from_array(W, "g.weight"))
    found = np.array(Equalize()(model).details["scales"]["a"]).reshape(2, 4)
    assert (found.argmax(axis=1) == 0).all()


@pytest.mark.parametrize("group", [1, 2])
def test_a_transposed_convolution_is_asked_by_input_channel(group: int) -> None:
    net = Net(4, 5, 5)
    y = net.relu(net.conv("x", 4, 8, 1, name="a"))
    model = net.model(net.head(net.deconv(y, 8, 6, group=group, name="t"), 6))
    scales = np.array(Equalize()(model).details["scales"]["a"])
    tensor = next(t for t in model.graph.initializer if t.name == model.graph.node[2].input[1])
    W = numpy_helper.to_array(tensor).copy()
    W[5] *= 8  # (C, M / groups, …)
    tensor.CopyFrom(numpy_helper.from_array(W, tensor.name))
    ratio = np.array(Equalize()(model).details["scales"]["a"]) / scales
    others = np.delete(ratio, 5)
    assert ratio[5] / others.max() > 6
    close(model, equalized(model))


def test_a_flattened_channel_has_one_factor_for_all_its_columns() -> None:
    net = Net(3, 4, 4)
    y = net.op("Flatten", net.relu(net.conv("x", 3, 8, name="a")))
    model = net.model(net.gemm(y, 128, 3, name="fc"))
    (made,) = Equalize()(spread(model)).details["scales"].values()
    assert len(made) == 8
    assert len(set(made)) > 4
    close(model, equalized(spread(model)))


def test_layers_of_a_residual_stream_share_their_factors() -> None:
    model = MODELS["residual"].build()
    scales = Equalize()(spread(model)).details["scales"]
    streams = {tuple(v) for v in scales.values() if len(v) == 8}
    makers = [name for name, v in scales.items() if len(v) == 8]
    assert len(streams) == 1
    assert len(makers) == 2
    close(model, equalized(spread(model)))


def test_a_batch_normalization_takes_factors_on_both_sides() -> None:
    """γ and β for what it makes; mean and γ for what it reads; variance and ε stay."""
    model = MODELS["pre_activation"].build()
    result = equalized(spread(model))
    close(model, result)
    old, new = Constants(model), Constants(result)
    pairs = zip(model.graph.node, result.graph.node, strict=True)
    norms = [(a, b) for a, b in pairs if a.op_type == "BatchNormalization"]
    assert norms
    for a, b in norms:
        np.testing.assert_array_equal(old.value(a.input[4]), new.value(b.input[4]))
        assert a.attribute == b.attribute
    assert any((old.value(a.input[3]) != new.value(b.input[3])).any() for a, b in norms)


# Clip.


def clipped(opset: int = 17, low: float = 0.0, high: float = 6.0) -> onnx.ModelProto:
    net = Net(3, 6, 6, opset=opset)
    y = net.conv("x", 3, 8, name="a")
    if opset < 11:
        y = net.op("Clip", y, min=low, max=high)
    else:
        bounds = [net.store(np.array(v, np.float32)) for v in (low, high)]
        y = net.op("Clip", y, *bounds)
    return net.model(net.head(net.conv(y, 8, 6, name="b"), 6))


def operators(model: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in model.graph.node][1:-4]


def test_a_clip_keeps_its_scale_unless_told_otherwise() -> None:
    model = clipped()
    result = Equalize()(model)
    assert operators(result.model) == ["Clip"]
    reasons = {s.node: s.reason for s in result.skipped}
    assert reasons["b"] == "the scale of its inputs is fixed: made by Clip 'clip_1'"
    assert reasons["a"] == "the scale of its inputs is fixed: 'x' is an input of the model"


@pytest.mark.parametrize("opset", [9, 11, 17])
@pytest.mark.parametrize(
    ("low", "high", "ops"),
    [(0.0, 0.2, ["Relu", "Min"]), (-0.1, 0.2, ["Max", "Min"]), (0.0, np.inf, ["Clip"])],
)
def test_across_all_the_bounds_of_a_clip_go_with_its_channels(
    opset: int, low: float, high: float, ops: list[str]
) -> None:
    model = clipped(opset, low, min(high, float(np.finfo(np.float32).max)))
    result = Equalize(across="all")(model)
    assert operators(result.model) == ops
    assert len(set(result.details["scales"]["a"])) > 1
    close(model, result.model)
    assert [n.name for n in result.model.graph.node if n.op_type == ops[-1]] == ["clip_1"]


def test_before_opset_8_bounds_cannot_be_given_to_channels() -> None:
    model = clipped(7)
    assert operators(equalized(model, across="all")) == ["Clip"]


def test_a_clip_at_zero_is_a_relu() -> None:
    model = clipped(17, 0.0, float("inf"))
    assert "a" in Equalize()(model).details["scales"]


# What has to stay.


def fixed(model: onnx.ModelProto, *names: str) -> dict[str, str]:
    """Reasons of these layers, whose inputs nobody may scale; outputs are checked."""
    result = Equalize()(model)
    assert not set(names) & set(result.details["scales"])
    close(model, result.model)
    return {s.node: s.reason for s in result.skipped}


def test_shared_weights_stay() -> None:
    net = Net(8, 6, 6)
    w = net.weight(8, 8, 1, 1, fan_in=8)
    y = net.relu(net.op("Conv", "x", w, name="a"))
    y = net.relu(net.op("Conv", y, w, name="b"))
    model = net.model(net.head(y, 8))
    assert fixed(model, "a", "b")["b"].endswith("its weight is shared")
    assert len(model.graph.initializer) == len(equalized(model).graph.initializer)


def test_weights_on_a_grid_stay() -> None:
    model = Quantize(bits=3)(chain()).model
    result = Equalize()(model)
    assert not result.modified
    assert result.model is model
    reasons = {s.node: s.reason for s in result.skipped}
    assert reasons["b"].endswith("its weights are on a grid already")


def test_channels_that_leave_the_model_stay() -> None:
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    model = net.model(y, net.head(net.conv(y, 8, 6, name="b"), 6))
    assert "graph output" in fixed(model, "a")["b"]


def test_what_is_not_homogeneous_fixes_the_scale() -> None:
    for op in ("Sigmoid", "HardSwish", "Elu", "Exp"):
        net = Net(3, 6, 6)
        y = net.op(op, net.conv("x", 3, 8, name="a"), name="f")
        model = net.model(net.head(net.conv(y, 8, 6, name="b"), 6))
        assert fixed(model, "a")["b"].endswith(f"made by {op} 'f'")


@pytest.mark.parametrize(("value", "free"), [(0.0, True), (0.5, False)])
def test_padding_with_a_number_fixes_the_scale(value: float, free: bool) -> None:
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    pads = net.ints(0, 0, 1, 1, 0, 0, 1, 1)
    y = net.op("Pad", y, pads, net.store(np.array(value, np.float32)))
    model = net.model(net.head(net.conv(y, 8, 6, name="b"), 6))
    assert ("a" in Equalize()(model).details["scales"]) is free
    close(model, equalized(model))


def test_what_a_resize_fills_in_fixes_the_scale() -> None:
    for value in (0.0, 1.0):
        net = Net(3, 6, 6)
        y = net.relu(net.conv("x", 3, 8, name="a"))
        roi = net.store(np.array([0, 0, 0, 0, 1, 1, 2, 2], np.float32))
        y = net.op(
            "Resize", y, roi, net.store(np.ones(4, np.float32)), mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=value,
        )  # fmt: skip
        model = net.model(net.head(net.conv(y, 8, 6, name="b"), 6))
        assert ("a" in Equalize()(model).details["scales"]) is (value == 0.0)
        close(model, equalized(model))


def test_a_cast_to_another_type_fixes_the_scale() -> None:
    for kind, free in ((TensorProto.FLOAT, True), (TensorProto.FLOAT16, False)):
        net = Net(3, 6, 6)
        y = net.relu(net.conv("x", 3, 8, name="a"))
        y = net.op("Cast", net.op("Cast", y, to=kind), to=TensorProto.FLOAT)
        model = net.model(net.head(net.conv(y, 8, 6, name="b"), 6))
        assert ("a" in Equalize()(model).details["scales"]) is free


def test_one_number_added_to_several_channels_fixes_the_scale() -> None:
    for value, free in ((0.5, False), (0.0, True)):
        net = Net(3, 6, 6)
        y = net.op("Add", net.conv("x", 3, 8, name="a"), net.store(np.array(value, np.float32)))
        model = net.model(net.head(net.conv(net.relu(y), 8, 6, name="b"), 6))
        assert ("a" in Equalize()(model).details["scales"]) is free
        close(model, equalized(spread(model)))


def test_what_a_body_reads_has_a_fixed_scale() -> None:
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    one = helper.make_graph(
        [helper.make_node("Relu", [y], ["one"])], "one", [], [net.info("one", "N", 8, 6, 6)]
    )
    two = helper.make_graph(
        [helper.make_node("Neg", [y], ["two"])], "two", [], [net.info("two", "N", 8, 6, 6)]
    )
    total = net.op("ReduceMean", "x", keepdims=0)
    chosen = net.op("Greater", total, net.store(np.array(0.0, np.float32)))
    z = net.op("If", chosen, then_branch=one, else_branch=two)
    net.declare(z, "N", 8, 6, 6)
    model = net.model(net.head(net.conv(net.op("Add", z, y), 8, 6, name="b"), 6))
    assert "'a'" not in fixed(model, "a")["b"]
    assert "If" in fixed(model, "a")["b"]


def test_parameters_that_others_read_too_are_copied() -> None:
    """Exporters store equal biases once."""
    net = Net(3, 6, 6)
    bias = net.vector(8)
    y = net.relu(net.op("Conv", "x", net.weight(8, 3, 1, 1, fan_in=3), bias, name="a"))
    y = net.relu(net.op("Conv", y, net.weight(8, 8, 1, 1, fan_in=8), bias, name="b"))
    model = net.model(net.head(y, 8))
    result = equalized(spread(model))
    close(model, result)
    assert len({n.input[2] for n in result.graph.node if n.op_type == "Conv"}) == 2


# Types and storage.


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_types(dtype: type) -> None:
    model = chain(dtype)
    result = Equalize()(spread(model))
    factors = np.concatenate([np.asarray(v) for v in result.details["scales"].values()])
    assert result.modified
    if dtype is np.float16:  # nothing is rounded, and nothing gets larger
        assert (np.frexp(factors)[0] == 0.5).all()
        assert (factors <= 1).all()
        for name, value in values(result.model).items():
            assert value.dtype == np.float16, name
    if dtype is not np.float64:  # which onnxruntime does not run
        feeds = feeds_for(model, sizes_of(model))
        expected, found = run(spread(model), feeds), run(result.model, feeds)
        assert relative_difference(expected, found) < (2e-6 if dtype is np.float32 else 2e-3)


def values(model: onnx.ModelProto) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type != 7}


def test_half_precision_is_scaled_without_rounding() -> None:
    model = equalized(spread(chain(np.float16)))
    original = {k: v.astype(np.float64) for k, v in values(chain(np.float16)).items()}
    checked = 0
    for name, value in values(model).items():
        if name in original:
            ratio = value.astype(np.float64) / original[name]
            assert (np.frexp(ratio)[0] == 0.5).all(), name
            checked += 1
    assert checked


def test_a_weight_that_half_precision_cannot_scale_keeps_its_channel() -> None:
    model = chain(np.float16)
    tensor = next(t for t in model.graph.initializer if t.name == "a.weight")
    W = numpy_helper.to_array(tensor).copy()
    W[2, 0, 0, 0] = 2.0**-24  # the smallest number there is
    tensor.CopyFrom(numpy_helper.from_array(W, "a.weight"))
    other = next(t for t in model.graph.initializer if t.name == "b.weight")
    V = numpy_helper.to_array(other).copy()
    V[:, 2] *= np.float16(0.125)  # so that a smaller channel would be wanted
    other.CopyFrom(numpy_helper.from_array(V, "b.weight"))
    assert Equalize()(model).details["scales"].get("a", [1.0] * 8)[2] == 1.0


@pytest.mark.parametrize("ir", [3, 8])
def test_old_formats(ir: int) -> None:
    """Before IR version 4 each stored tensor is an input too."""
    model = chain(ir=ir)
    result = equalized(spread(model))
    close(model, result)
    stored = {t.name for t in result.graph.initializer}
    assert (stored <= {i.name for i in result.graph.input}) is (ir == 3)


def test_weights_in_constant_nodes_and_behind_nodes_that_move_them() -> None:
    model = chain()
    moved = [t for t in model.graph.initializer if t.name in ("a.weight", "b.weight")]
    for i, tensor in enumerate(moved):
        value = numpy_helper.to_array(tensor).swapaxes(0, 1)
        node = helper.make_node(
            "Constant", [], [f"c{i}"], value=numpy_helper.from_array(np.ascontiguousarray(value))
        )
        turn = helper.make_node("Transpose", [f"c{i}"], [tensor.name], perm=[1, 0, 2, 3])
        model.graph.node.insert(0, turn)
        model.graph.node.insert(0, node)
        model.graph.initializer.remove(tensor)
    result = Equalize()(spread(model))
    assert set(result.details["scales"]) == {"a", "b"}
    close(model, result.model)
    assert [n.op_type for n in result.model.graph.node] == [n.op_type for n in model.graph.node]


# Factors as data.


def test_scales_are_replayed_to_the_same_bytes() -> None:
    model = spread(MODELS["residual"].build())
    first = Equalize()(model)
    again = Equalize(scales=first.details["scales"])(model)
    assert again.model.SerializeToString() == first.model.SerializeToString()
    assert again.details["scales"] == first.details["scales"]


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({"nobody": [1.0]}, "the scales name 'nobody', which makes no channels"),
        ({"a": [2.0] * 7}, "'a' must be 8 finite numbers above 0"),
        ({"a": [2.0] * 7 + [0.0]}, "'a' must be 8 finite numbers above 0"),
        ({"a": [2.0] * 7 + [float("nan")]}, "'a' must be 8 finite numbers above 0"),
        ({"fc": [2.0] * 3}, "'fc' do not fit this model: graph output"),
    ],
)
def test_scales_that_do_not_fit(scales: dict[str, list[float]], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Equalize(scales=scales)(chain())


def test_scales_of_tied_channels_must_agree() -> None:
    model = spread(MODELS["residual"].build())
    scales = dict(Equalize()(model).details["scales"])
    name = next(k for k, v in scales.items() if len(v) == 8)
    scales[name] = [2.0 * v for v in scales[name]]
    with pytest.raises(PlanError, match="differ from those they are tied to"):
        Equalize(scales=scales)(model)


def test_options() -> None:
    with pytest.raises(OptionError, match="'clip' is not known; there are: homogeneous, all"):
        Equalize(across="clip")


def test_the_verb_says_how_many_channels_it_scaled(tmp_path: Path) -> None:
    sample = str(Path(__file__).parents[3] / "examples" / "fashion_resnet.onnx")
    out = tmp_path / "even.onnx"
    result = CliRunner().invoke(cli, ["equalize", sample, "-o", str(out)])
    assert result.exit_code == 0, result.stderr
    done = onnx_esn.equalize(sample)
    assert f"scaled {done.details['scaled_channels']} of" in result.output
    assert done.details["scaled_channels"] > 0
    assert onnx.load(out).graph.node == done.model.graph.node
    feeds = {"image": np.random.default_rng(0).normal(size=(2, 1, 28, 28)).astype(np.float32)}
    feeds = {i.name: feeds["image"] for i in onnx.load(sample).graph.input}
    before, after = (run(onnx.load(path), feeds)[0] for path in (sample, out))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", ["Conv", "Conv of groups", "ConvTranspose", "Gemm", "Gemm turned"])
def test_factors_of_some_filters_are_those_of_all(op: str) -> None:
    net = Net(8, 6, 6)
    if op.startswith("Gemm"):
        turned = op == "Gemm turned"
        weight = net.weight(*((5, 288) if turned else (288, 5)), fan_in=288)
        y = net.op("Gemm", net.op("Flatten", "x"), weight, transB=int(turned))
    elif op == "ConvTranspose":
        y = net.deconv("x", 8, 6, group=2)
    else:
        y = net.conv("x", 8, 12, group=2 if op == "Conv of groups" else 1)
    (layer,) = find_plain_layers(net.model(y))
    rng = np.random.default_rng(0)
    shape = layer.weight_shape
    for pattern in range(1 << len(shape)):
        by = rng.random(tuple(n if pattern >> i & 1 else 1 for i, n in enumerate(shape)))
        whole = layer.as_filters(np.broadcast_to(by, shape))
        for rows in (slice(0, 2), slice(2, None), slice(1, layer.filters)):
            np.testing.assert_array_equal(of_filters(layer, by, rows), whole[rows])
    np.testing.assert_array_equal(of_filters(layer, np.full((), 2.0), slice(0, 1)), 2.0)
