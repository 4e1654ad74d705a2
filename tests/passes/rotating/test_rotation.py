from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import onnx_esn
from onnx_esn.errors import OptionError, PlanError
from onnx_esn.evaluation.difference import compare
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.correcting.norm_pairing import kept_channels
from onnx_esn.passes.rotating.rotation import Rotate
from tests.graph.random_graphs import random_model
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import relative_difference, run, run_reference, sizes_of
from tests.oracles.precision import uses
from tests.passes.layerwise.samples import layer_of
from tests.passes.tiny import graph, weights
from tests.runtime import NEWEST

# Two roundings of float32 weights, through some layers.
LIMIT = 2e-5


def close(a: onnx.ModelProto, b: onnx.ModelProto) -> None:
    onnx.checker.check_model(b, full_check=True)
    feeds = feeds_for(a, sizes_of(a))
    assert relative_difference(run(a, feeds), run(b, feeds)) < LIMIT


def streams(model: onnx.ModelProto, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Rotate(**options)(model).details["rotated"]
    return found


def inverted(
    *, norm: bool = False, blocks: int = 2, width: int = 6, opset: int = 17, **options: Any
) -> Net:
    """Residual blocks of expansion, depthwise layer and linear projection."""
    net = Net(3, 8, 8, opset=opset, **options)

    def layer(x: str, *args: Any, **attrs: Any) -> str:
        y: str = net.conv(x, *args, bias=not norm, **attrs)
        return net.bn(y, args[1]) if norm else y

    y = net.relu(layer("x", 3, 8, name="stem"))
    c = width
    y = layer(y, 8, c, 1, name="first")
    for i in range(blocks):
        h = net.op("Clip", layer(y, c, 3 * c, 1, name=f"expand{i}"), *limits(net))
        h = net.relu(layer(h, 3 * c, 3 * c, group=3 * c, name=f"depthwise{i}"))
        y = net.op("Add", y, layer(h, 3 * c, c, 1, name=f"project{i}"))
    y = net.relu(layer(y, c, 12, 1, name="head"))
    net.head(y, 12)
    return net


def limits(net: Net) -> list[str]:
    return [net.store(np.float32(0)), net.store(np.float32(6))]


def mobile(**options: Any) -> onnx.ModelProto:
    net = inverted(**options)
    return net.model(net.nodes[-1].output[0])


# The outputs stay what they are.


@pytest.mark.parametrize("name", MODELS)
def test_outputs_stay(name: str) -> None:
    model = standard_form(MODELS[name].build())
    before = model.SerializeToString()
    result = Rotate()(model)
    assert model.SerializeToString() == before
    assert result.modified == bool(result.details["rotated"])
    if result.modified:
        close(model, result.model)


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_outputs_of_random_graphs(seed: int) -> None:
    model = standard_form(random_model(random.Random(seed)))
    result = Rotate(seed=seed % 7)(model).model
    try:
        feeds = feeds_for(model, sizes_of(model))
        expected = run(model, feeds)
    except Exception:  # sizes that this graph refuses
        return
    operators = {n.op_type for n in model.graph.node}
    if "BatchNormalization" in operators and uses(model, (TensorProto.DOUBLE,)):
        return  # left to the reference, which before opset 14 mixes the batch's statistics in
    assert relative_difference(expected, run(result, feeds)) < LIMIT


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("opset", [11, 13, 17, NEWEST])
def test_a_residual_stream_in_both_runtimes(norm: bool, opset: int) -> None:
    model = mobile(norm=norm, opset=opset)
    result = Rotate()(model)
    (stream,) = result.details["rotated"]
    assert stream == {
        "channels": 6,
        "made_by": ["first", "project0", "project1"],
        "read_by": ["expand0", "expand1", "head"],
    }
    close(model, result.model)
    feeds = feeds_for(model, sizes_of(model))
    if not norm or opset >= 14:  # before, the reference mixes the batch's statistics in
        a, b = run_reference(model, feeds), run_reference(result.model, feeds)
        assert relative_difference(a, b) < LIMIT
    # What normalised the stream's makers went into them; nothing else was added or removed.
    gone = 3 if norm else 0
    assert len(result.model.graph.node) == len(model.graph.node) - gone
    assert result.model.ByteSize() < model.ByteSize() + 1000


def test_channels_of_the_stream_are_mixed_and_renamed() -> None:
    model = mobile()
    result = Rotate()(model).model
    for name in ("first", "expand0", "project1", "head"):
        old, new = (Constants(m).value(layer_of(m, name).weight) for m in (model, result))
        assert np.abs(old - new).max() > 0.1 * np.abs(old).max()
        assert old.shape == new.shape
    for name in ("stem", "depthwise0"):
        old, new = (Constants(m).value(layer_of(m, name).weight) for m in (model, result))
        np.testing.assert_array_equal(old, new)
    added = next(n for n in result.graph.node if n.op_type == "Add")
    assert all(name.endswith("_rotated") for name in (*added.input, *added.output))


def test_same_bytes_for_the_same_seed() -> None:
    model = mobile(norm=True)
    first, again, other = (Rotate(seed=s)(model).model.SerializeToString() for s in (0, 0, 1))
    assert first == again != other


# What is between the layers.

JOINS = {
    "identity": lambda net, y: net.op("Identity", y),
    "added constant": lambda net, y: net.op("Add", y, net.vector(1, 6, 1, 1)),
    "added constant without batch": lambda net, y: net.op("Add", net.vector(6, 1, 1), y),
    "added map": lambda net, y: net.op("Sub", y, net.vector(1, 6, 8, 8)),
    "subtracted from a constant": lambda net, y: net.op("Sub", net.vector(6, 1, 1), y),
    "added zero": lambda net, y: net.op("Add", y, net.store(np.float32(0))),
    "twice": lambda net, y: net.op("Add", y, y),
    "three": lambda net, y: net.op("Sum", y, net.op("Neg", y), y),
    "one number": lambda net, y: net.op("Mul", net.store(np.float32(0.5)), y),
    "divided": lambda net, y: net.op("Div", y, net.store(np.array([[3.0]], np.float32))),
    "average": lambda net, y: net.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2]),
    "padded": lambda net, y: net.op("Pad", y, net.ints(0, 0, 1, 0, 0, 0, 0, 2)),
    "reflected": lambda net, y: net.op("Pad", y, net.ints(0, 0, 1, 0, 0, 0, 0, 2), mode="reflect"),
    "resized": lambda net, y: net.op(
        "Resize", y, "", net.store(np.array([1, 1, 2, 2], np.float32)), mode="linear"
    ),
    "mean": lambda net, y: net.op("ReduceMean", y, axes=[2, 3], keepdims=1),
}


@pytest.mark.parametrize("kind", JOINS)
def test_linear_operators_pass(kind: str) -> None:
    net = Net(3, 8, 8)
    y = JOINS[kind](net, net.conv("x", 3, 6, name="a"))
    model = net.model(net.relu(net.conv(y, 6, 4, name="b")))
    result = Rotate()(model)
    assert [s["read_by"] for s in result.details["rotated"]] == [["b"]]
    close(model, result.model)


STOPS = {
    "relu": lambda net, y: net.relu(y),
    "max pooling": lambda net, y: net.op("MaxPool", y, kernel_shape=[2, 2]),
    "a number for all channels": lambda net, y: net.op("Add", y, net.store(np.float32(1))),
    "a factor for each channel": lambda net, y: net.op("Mul", y, net.vector(1, 6, 1, 1)),
    "depthwise": lambda net, y: net.conv(y, 6, 6, group=6),
    "padded with ones": lambda net, y: net.op(
        "Pad", y, net.ints(0, 0, 1, 0, 0, 0, 0, 2), net.store(np.float32(1))
    ),
    "channels moved": lambda net, y: net.op(
        "Slice", y, net.ints(5), net.ints(-7), net.ints(1), net.ints(-1)
    ),
    "concatenated": lambda net, y: net.op(
        "Slice", net.op("Concat", y, "x", axis=1), net.ints(0), net.ints(6), net.ints(1)
    ),
    "squared": lambda net, y: net.op("Mul", y, y),
    "softmax over channels": lambda net, y: net.op("Softmax", y, axis=1),
    "mean over channels": lambda net, y: net.op(
        "Add", y, net.op("ReduceMean", y, axes=[1], keepdims=1)
    ),
    "one channel added to all": lambda net, y: net.op("Add", y, net.conv("x", 3, 1)),
}


@pytest.mark.parametrize("kind", STOPS)
def test_others_do_not(kind: str) -> None:
    net = Net(3, 8, 8)
    y = STOPS[kind](net, net.conv("x", 3, 6, name="a"))
    model = net.model(net.relu(net.conv(y, 6, 4, name="b")))
    found = Rotate()(model)
    assert "a" not in [name for s in found.details["rotated"] for name in s["made_by"]]
    close(model, found.model)


def test_outputs_of_the_model_stay() -> None:
    net = Net(3, 8, 8)
    y = net.conv("x", 3, 6, name="a")
    model = net.model(y, net.relu(net.conv(y, 6, 4, name="b")))
    assert streams(model) == []


def test_what_a_body_reads_stays() -> None:
    net = Net(3, 8, 8)
    y = net.conv("x", 3, 6, name="a")
    bodies = []
    for name, op in (("then", "Relu"), ("else", "Neg")):
        body = Net(prefix=f"{name}_")
        bodies.append(body.body(body.info(body.op(op, y), "N", 6, 8, 8)))
    chosen = net.op("If", net.raw(np.array(True)), then_branch=bodies[0], else_branch=bodies[1])
    z = net.conv(y, 6, 4, name="b")
    model = net.model(chosen, net.relu(z))
    assert streams(model) == []


@pytest.mark.parametrize("flatten", ["Flatten", "Reshape", "Squeeze"])
def test_pooled_maps_are_flattened_into_a_classifier(flatten: str) -> None:
    net = Net(3, 8, 8)
    y = net.op("GlobalAveragePool", net.conv("x", 3, 6, name="a"))
    more = {"Reshape": [net.ints(0, -1)], "Squeeze": [net.ints(2, 3)], "Flatten": []}[flatten]
    model = net.model(net.gemm(net.op(flatten, y, *more), 6, 4, name="fc"))
    assert [(s["made_by"], s["read_by"]) for s in streams(model)] == [(["a"], ["fc"])]
    close(model, Rotate()(model).model)


def test_a_flattened_map_is_none_of_its_channels() -> None:
    net = Net(3, 2, 2)
    y = net.op("Flatten", net.conv("x", 3, 6, name="a"))
    model = net.model(net.gemm(y, 24, 4, name="fc"))
    assert streams(model) == []


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["none", "row", "matrix", "number"])
def test_products_of_matrices(transposed: int, bias: str) -> None:
    shapes = {"row": (6,), "matrix": (1, 6), "number": (1,)}
    V = weights(6, 5) if transposed else weights(5, 6)
    tensors = {"V": V, "W": weights(6, 4, seed=1)}
    inputs = ["x", "V"]
    if bias != "none":
        tensors["b"] = weights(*shapes[bias], seed=2)
        inputs.append("b")
    model = graph(
        [
            ("Gemm", inputs, ["h"], {"transB": transposed, "alpha": 0.5, "beta": 2.0}),
            ("MatMul", ["h", "W"], ["y"], {}),
        ],
        {"x": ["N", 5]},
        tensors,
    )
    assert [(s["made_by"], s["read_by"]) for s in streams(model)] == [(["Gemm_0"], ["MatMul_1"])]
    close(model, Rotate()(model).model)


def test_a_transposed_convolution_at_either_end() -> None:
    net = Net(3, 8, 8)
    y = net.deconv(net.deconv("x", 3, 6, name="a"), 6, 5, name="b")
    model = net.model(net.relu(y))
    assert [(s["made_by"], s["read_by"]) for s in streams(model)] == [(["a"], ["b"])]
    close(model, Rotate()(model).model)


def test_a_layer_between_two_streams() -> None:
    net = Net(3, 8, 8)
    y = net.conv(net.conv(net.conv("x", 3, 6, name="a"), 6, 5, name="b"), 5, 4, name="c")
    model = net.model(net.relu(y))
    assert [s["channels"] for s in streams(model)] == [6, 5]
    close(model, Rotate()(model).model)


# What is left alone.


def test_layers_that_are_excluded_keep_their_weights() -> None:
    model = mobile()
    assert streams(model, exclude=("expand1",)) == []
    assert len(streams(model, exclude=("depthwise0",))) == 1
    assert streams(model, only=("expand0",)) == []
    with pytest.raises(OptionError, match="nothing"):
        Rotate(exclude=("nothing",))(model)


def test_half_precision_would_show() -> None:
    assert streams(mobile(dtype=np.float16)) == []
    model = mobile(dtype=np.float64)
    assert len(streams(model)) == 1
    close(model, Rotate()(model).model)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("where", ["V", "W"])
def test_weights_at_the_ends_of_their_type(where: str, size: float) -> None:
    tensors = {"V": weights(6, 3, 1, 1), "W": weights(4, 6, 1, 1, seed=1)}
    tensors[where] *= np.float32(size)
    model = graph(
        [("Conv", ["x", "V"], ["a"], {}), ("Conv", ["a", "W"], ["y"], {})],
        {"x": ["N", 3, 4, 4]},
        tensors,
    )
    result = Rotate()(model)
    assert result.modified == (size == 0.0)
    for tensor in result.model.graph.initializer:
        assert np.isfinite(onnx.numpy_helper.to_array(tensor)).all()


def test_shared_weights_stay() -> None:
    W = weights(6, 6, 1, 1)
    model = graph(
        [
            ("Conv", ["x", "W"], ["a"], {}),
            ("Conv", ["a", "W"], ["b"], {}),
            ("Relu", ["b"], ["y"], {}),
        ],
        {"x": ["N", 6, 4, 4]},
        {"W": W},
    )
    assert streams(model) == []


# With quantization.


def saved(tmp_path: Path, count: int = 24) -> Path:
    images = np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "images.npz", x=images)
    return tmp_path / "images.npz"


def test_a_plan_is_replayed_on_the_model_as_it_was(tmp_path: Path) -> None:
    model, images = mobile(norm=True), saved(tmp_path)
    done = onnx_esn.quantize(model, bits=3, images=images)
    assert len(done.details["rotated"]) == 1
    assert done.plan is not None
    path = tmp_path / "plan.json"
    path.write_text(done.plan.to_json(), encoding="utf-8")
    again = onnx_esn.quantize(model, plan=path)
    assert again.model.SerializeToString() == done.model.SerializeToString()
    assert onnx_esn.quantize(model, plan=done.plan).plan == done.plan
    with pytest.raises(PlanError, match=r"expand0, expand1, first.*not linear"):
        onnx_esn.quantize(broken(model), plan=path)


def broken(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with an activation on the stream."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    added = next(n for n in other.graph.node if n.op_type == "Add")
    name = added.output[0]
    added.output[0] = "before"
    index = list(other.graph.node).index(added) + 1
    other.graph.node.insert(index, helper.make_node("Relu", ["before"], [name]))
    return other


def test_it_can_be_left_out(tmp_path: Path) -> None:
    model, images = mobile(), saved(tmp_path)
    plain = onnx_esn.quantize(model, bits=3, images=images, rotate=False)
    assert "rotated" not in plain.details
    assert '"rotat' not in plain.plan.to_json()  # type: ignore[union-attr]
    # Nor is it done without images, or where the reference has no such streams.
    other = onnx_esn.quantize(model, bits=3, images=images, reference=broken(model))
    assert not other.details.get("rotated")
    assert "rotated" not in onnx_esn.quantize(model, bits=3).details


def test_compress_shows_it_as_a_stage(tmp_path: Path) -> None:
    model, images = mobile(), saved(tmp_path, 40)
    done = onnx_esn.compress(model, images, target_cost="10%", latency=False)
    assert next(name for name, _ in done.stages) == "rotate"
    pruned = onnx_esn.compress(model, images, ratio=0.3, bits=4, latency=False)
    names = [name for name, _ in pruned.stages]
    assert names[:4] == ["prune", "refit", "rotate", "quantize"]
    left_alone = " ".join(s.reason for s in dict(pruned.stages)["quantize"].skipped)
    assert "basis" not in left_alone
    assert "recorded" not in left_alone


def made(model: onnx.ModelProto, layer: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """What a layer makes."""
    node = next(n for n in model.graph.node if n.name == layer)
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    seen.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
    return run(seen, feeds)[0]


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_a_pruned_model_and_its_original_are_rotated_alike(norm: bool, twice: bool) -> None:
    """A layer with the same inputs makes the same channels in both, those that are left."""
    model = onnx_esn.rotate(mobile(norm=norm)).model if twice else mobile(norm=norm)
    pruned = onnx_esn.prune(model, ratio=0.4, exclude=["stem"]).model
    kept = kept_channels(pruned)["first"]
    feeds = feeds_for(model, sizes_of(model))
    found, (beside,) = Rotate(seed=3).beside(pruned, model)
    assert len(found.details["rotated"]) == 1
    close(pruned, found.model)
    close(model, beside)
    mine, theirs = (made(x, "first", feeds) for x in (found.model, beside))
    assert 1 < len(kept) == mine.shape[1] < theirs.shape[1]
    np.testing.assert_allclose(mine, theirs[:, kept], rtol=1e-3, atol=1e-4)
    before = made(pruned, "first", feeds)
    assert relative_difference([before], [mine]) > 0.1
    # As two steps of one pruning, too.
    again = onnx_esn.prune(pruned, ratio=0.3, exclude=["stem"]).model
    found, (beside,) = Rotate(seed=3).beside(again, pruned)
    mine, theirs = (made(x, "first", feeds) for x in (found.model, beside))
    left = [list(kept).index(k) for k in kept_channels(again)["first"]]
    np.testing.assert_allclose(mine, theirs[:, left], rtol=1e-3, atol=1e-4)


def test_what_is_not_in_both_is_rotated_in_neither() -> None:
    model = mobile()
    found, (beside,) = Rotate().beside(onnx_esn.rotate(model).model, model)
    assert not found.modified
    assert beside is model
    found, (beside,) = Rotate().beside(model, broken(model))
    assert not found.modified
    nameless = onnx_esn.prune(model, ratio=0.4).model
    del nameless.metadata_props[:]
    assert not Rotate().beside(nameless, model)[0].modified


def test_few_bits_harm_less(tmp_path: Path) -> None:
    """Where some weights are much larger than others, as of trained layers."""
    images = saved(tmp_path, 96)
    feeds = {"x": np.random.default_rng(1).normal(size=(64, 3, 8, 8)).astype(np.float32)}
    ratios = []
    for seed in range(3):
        model = mobile(width=16, blocks=3, seed=seed)
        rng = np.random.default_rng(seed)
        for tensor in model.graph.initializer:
            if tensor.name.startswith(("first", "expand", "project")):
                W = onnx.numpy_helper.to_array(tensor)
                heavy = (W * np.exp(rng.normal(size=W.shape))).astype(np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(heavy, tensor.name))
        wanted = run(model, feeds)[0]
        error = {}
        for rotate in (False, True):
            small = onnx_esn.quantize(model, bits=3, images=images, rotate=rotate).model
            error[rotate] = float(np.square(run(small, feeds)[0] - wanted).sum())
        ratios.append(error[True] / error[False])
    assert np.exp(np.log(ratios).mean()) < 0.85


def test_a_rotated_model_is_not_brought_towards_one_that_is_not(tmp_path: Path) -> None:
    model, images = mobile(), saved(tmp_path)
    small = onnx_esn.quantize(model, bits=4, images=images).model
    back = onnx_esn.recalibrate(small, images, reference=model, method="match")
    said = {s.node: s.reason for s in back.skipped}
    assert {n for n, why in said.items() if "another basis" in why} == {
        "first", "project0", "project1",
    }  # fmt: skip
    rotated = onnx_esn.rotate(model).model
    again = onnx_esn.quantize(rotated, bits=4, images=images, reference=model)
    assert not again.details.get("rotated")
    assert "another basis" in " ".join(s.reason for s in again.skipped)
    feeds = feeds_for(model, sizes_of(model))
    assert relative_difference(run(model, feeds), run(again.model, feeds)) < 0.5


def test_compare_does_not_compare_different_bases(tmp_path: Path) -> None:
    model, images = mobile(), saved(tmp_path)
    rotated = onnx_esn.rotate(model).model
    found = {x.name: x for x in compare(model, rotated, images=images).layers}
    assert found["first"].output_snr_db is None
    assert "another basis" in found["first"].reason
    assert found["first"].weight_snr_db is None
    snr = found["expand0"].output_snr_db
    assert snr is not None
    assert snr > 90
    assert found["expand0"].weight_snr_db is None
    again = {x.name: x for x in compare(rotated, rotated, images=images).layers}
    assert again["first"].reason == ""
