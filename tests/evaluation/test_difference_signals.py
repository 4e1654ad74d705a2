"""Signals on images: layer by layer and at the outputs, against figures computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import helper, numpy_helper

import onnx_esn
from onnx_esn.calibration import Session, open_set
from onnx_esn.errors import InferenceError, OptionError, VerificationError
from onnx_esn.evaluation.difference import compare
from onnx_esn.evaluation.difference.layers import pair_layers, view_model
from onnx_esn.evaluation.difference.signals import layer_signals
from onnx_esn.numerics.agreement import agreement, divergence
from tests.evaluation.nets import (
    classifier,
    copy,
    dequantized,
    folded,
    named,
    noisy,
    renamed,
    value,
)
from tests.net import Net


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(23, 3, 6, 6)).astype(np.float32)


def tensor(model, name, x):
    return Session(model, outputs=[name]).run({model.graph.input[0].name: x})[name]


def snr(before, after):
    before, after = before.astype(np.float64), after.astype(np.float64)
    return 10 * math.log10(np.square(before).sum() / np.square(after - before).sum())


def outputs(found):
    return {x.name: x.output_snr_db for x in found.layers}


def normalised(model):
    """By layer: the tensor behind its normalization."""
    readers = {n.input[0]: n for n in model.graph.node if n.op_type == "BatchNormalization"}
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    return {
        n.name: readers[n.output[0]].output[0] if n.output[0] in readers else n.output[0]
        for n in convs
    }


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_noise_behind_the_normalization(images, batch_size):
    a = classifier()
    b = noisy(a, "a.weight")
    found = outputs(compare(a, b, images, batch_size=batch_size))
    for name, end in normalised(a).items():
        expected = snr(tensor(a, end, images), tensor(b, end, images))
        assert found[name] == pytest.approx(expected, rel=1e-6)
    logits = a.graph.output[0].name
    expected = snr(tensor(a, logits, images), tensor(b, logits, images))
    assert found["fc"] == pytest.approx(expected, rel=1e-6)


def test_one_folded_and_one_kept(images):
    a = classifier()
    b = folded(noisy(a, "b.weight"))
    found = outputs(compare(a, b, images))
    assert found["a"] > 110
    ends = normalised(a)["b"], named(b, "b").output[0]
    assert found["b"] == pytest.approx(snr(tensor(a, ends[0], images), tensor(b, ends[1], images)))
    other = compare(b, a, images)
    assert outputs(other)["a"] > 110


def test_a_normalization_of_other_operators(images):
    """BatchNormalization as Mul and Add of a number for each channel."""
    a = classifier()
    b = copy(a)
    norm = next(n for n in b.graph.node if n.op_type == "BatchNormalization")
    gamma, beta, mean, var = (value(a, name) for name in norm.input[1:5])
    scale = gamma / np.sqrt(var + np.float32(1e-5))
    parts = {"scale": scale, "shift": beta - mean * scale}
    for name, array in parts.items():
        b.graph.initializer.append(numpy_helper.from_array(array.reshape(-1, 1, 1), name))
    at = list(b.graph.node).index(norm)
    b.graph.node.insert(at, helper.make_node("Mul", [norm.input[0], "scale"], ["scaled"], "m"))
    b.graph.node.insert(at + 1, helper.make_node("Add", ["shift", "scaled"], [norm.output[0]], "s"))
    b.graph.node.remove(norm)
    assert outputs(compare(a, b, images))["a"] > 110


def test_what_others_read_too_is_the_end(images):
    """The sum behind the layer is no normalization of it: something else reads the layer."""
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 4, name="a")
    z = net.op("Mul", y, net.store(np.full((4, 1, 1), 7.0)))
    a = net.model(net.op("Add", net.relu(y), z))
    b = copy(a)
    constant = named(b, next(n.name for n in b.graph.node if n.op_type == "Mul")).input[1]
    stored = next(t for t in b.graph.initializer if t.name == constant)
    stored.CopyFrom(numpy_helper.from_array(np.full((4, 1, 1), 5, np.float32), constant))
    assert outputs(compare(a, b, images))["a"] == math.inf


def test_a_number_for_each_position_is_no_normalization(images):
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 4, name="a")
    a = net.model(net.op("Mul", y, net.vector(4, 6, 6, low=1, high=2)))
    b = copy(a)
    mul = next(n for n in b.graph.node if n.op_type == "Mul")
    stored = next(t for t in b.graph.initializer if t.name == mul.input[1])
    stored.CopyFrom(numpy_helper.from_array(np.ones((4, 6, 6), np.float32), mul.input[1]))
    assert outputs(compare(a, b, images))["a"] == math.inf


def test_the_channels_that_are_left(images):
    a = classifier()
    b = onnx_esn.prune(a, ratio=0.5).model
    found = compare(a, b, images)
    ends = normalised(a), normalised(b)
    for layer in found.layers[:2]:
        kept = [i for i in range(layer.before.filters) if i not in layer.removed]
        assert len(kept) < layer.before.filters
        before = tensor(a, ends[0][layer.name], images)[:, kept]
        after = tensor(b, ends[1][layer.name], images)
        # The first layer loses nothing that is left.
        if layer.name == "a":
            assert layer.output_snr_db > 110
        else:
            assert layer.output_snr_db == pytest.approx(snr(before, after), rel=1e-6)


def test_channels_of_which_nothing_is_known(images):
    a = classifier()
    b = onnx_esn.prune(a, ratio=0.5).model
    del b.metadata_props[:]
    layer = compare(a, b, images).layers[0]
    assert layer.output_snr_db is None
    assert layer.reason == "nothing says which filters are left"


def test_other_names_dequantized_weights_and_passed_on_outputs(images):
    a = classifier()
    W = value(a, "b.weight")
    step = np.abs(W).max(axis=(1, 2, 3)) / 127
    codes = np.rint(W / step[:, None, None, None]).astype(np.int8)
    b = dequantized(a, "b", codes, step.astype(np.float32))
    end = named(b, "b").output[0]
    norm = next(n for n in b.graph.node if end in n.input)
    scale = numpy_helper.from_array(np.array(1e-4, np.float32), "fine")
    b.graph.initializer.extend([scale, numpy_helper.from_array(np.array(0, np.int16), "zero")])
    at = list(b.graph.node).index(norm)
    b.graph.node.insert(
        at, helper.make_node("QuantizeLinear", [end, "fine", "zero"], ["ints"], "q")
    )
    b.graph.node.insert(
        at + 1, helper.make_node("DequantizeLinear", ["ints", "fine", "zero"], ["floats"], "d")
    )
    norm.input[0] = "floats"
    b.opset_import[0].version = 21
    ends = normalised(a)["b"], norm.output[0]
    expected = snr(tensor(a, ends[0], images), tensor(b, ends[1], images))
    found = compare(a, renamed(b), images)
    assert outputs(found)["b"] == pytest.approx(expected, rel=1e-6)


def test_fixed_batches_are_padded_and_the_padding_left_out(images):
    a, b = classifier(batch=4), noisy(classifier(), "a.weight")
    free = outputs(compare(classifier(), b, images))
    for name, got in outputs(compare(a, b, images)).items():
        assert got == pytest.approx(free[name], rel=1e-6)


def test_the_memory_limit_changes_no_figure(images):
    a, b = classifier(), noisy(classifier(), "a.weight")
    views = tuple(view_model(m, "m", None, None) for m in (a, b))
    pairs, _ = pair_layers(*views)
    sets = tuple(open_set(images, Session(m).inputs) for m in (a, b))
    seen = []

    def run(limit):
        return layer_signals(
            *views,
            pairs,
            sets,
            batch_size=64,
            memory_limit=limit,
            progress=lambda done, total: seen.append(done),
        )

    wide = run(2**30)
    assert seen == [23]
    narrow = run(1)
    assert seen[1:] == list(range(1, 24))
    for name, (db, _) in wide.items():
        assert narrow[name][0] == pytest.approx(db, rel=1e-6)


def test_a_layer_that_gives_infinities_has_a_reason(images):
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 4, name="a")
    y = net.op("Clip", net.op("Relu", y), "", net.store(np.array(6.0)))
    a = net.model(net.head(y, 4))
    weight = value(a, "a.weight").copy()
    weight[0] = 3e38
    b = copy(a)
    stored = next(t for t in b.graph.initializer if t.name == "a.weight")
    stored.CopyFrom(numpy_helper.from_array(weight, "a.weight"))
    # All positive, so that the infinity is one and is clipped away.
    layer = compare(a, b, np.abs(images) + 1).layers[0]
    assert layer.output_snr_db is None
    assert layer.reason == "its output holds NaN or infinity"


# Outputs.


def test_divergence_is_that_of_all_samples_at_once(images):
    a, b = classifier(), noisy(classifier(), "b.weight", 0.3)
    name = a.graph.output[0].name
    refs, cands = tensor(a, name, images), tensor(b, name, images)
    found = compare(a, b, images, batch_size=7).outputs
    assert found.divergence == pytest.approx(divergence({name: refs}, {name: cands}), rel=1e-4)
    assert found.divergence > 1e-4
    (output,) = found.outputs
    expected = agreement(refs, cands)
    assert output.agreement.top1 == expected.top1
    assert output.agreement.snr_db == pytest.approx(expected.snr_db, rel=1e-4)
    assert (found.samples, found.images) == (23, "arrays")


def two_outputs():
    """A classifier's output and a dense one."""
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 4, name="a")
    return net.model(net.head(y, 4), net.relu(y))


def test_divergence_of_several_outputs_is_their_mean(images):
    a = two_outputs()
    b = noisy(a, "a.weight", 0.3)
    names = [o.name for o in a.graph.output]
    refs, cands = ({n: tensor(m, n, images) for n in names} for m in (a, b))
    found = compare(a, b, images, batch_size=6).outputs
    assert found.divergence == pytest.approx(divergence(refs, cands), rel=1e-4)
    dense = agreement(refs[names[1]], cands[names[1]]).normalized_error
    assert found.divergence != pytest.approx(dense, rel=1e-2)


def test_equal_models_do_not_diverge(images):
    found = compare(classifier(), classifier(), images)
    assert found.outputs.divergence == 0
    found.require(0.0)


def test_an_output_of_another_shape_diverges_without_end(images):
    a, b = classifier(), classifier(classes=5)
    found = compare(a, b, images, names=["one", "two"])
    assert found.outputs.divergence == math.inf
    assert "do not compare" in found.outputs.outputs[0].reason
    assert found.to_document()["outputs"]["divergence"] is None
    with pytest.raises(VerificationError, match=r"two diverge from those of one by inf.*compare"):
        found.require(1e9)
    assert found.layers[2].reason or found.layers[2].output_snr_db is None


def test_the_limit(images):
    found = compare(classifier(), noisy(classifier(), "b.weight"), images)
    d = found.outputs.divergence
    found.require(d)
    with pytest.raises(VerificationError, match="more than the"):
        found.require(d * 0.99)
    for wrong in (math.nan, -1):
        with pytest.raises(OptionError, match="makes no sense"):
            found.require(wrong)
    with pytest.raises(OptionError, match="measured on images"):
        compare(classifier(), classifier()).require(1)


def test_a_model_that_gives_nan_fails(images):
    a = classifier()
    W = value(a, "fc.weight").copy()
    W[0] = np.nan
    b = copy(a)
    stored = next(t for t in b.graph.initializer if t.name == "fc.weight")
    stored.CopyFrom(numpy_helper.from_array(W, "fc.weight"))
    with pytest.raises(InferenceError, match="NaN"):
        compare(a, b, images)


def test_models_that_take_something_else():
    with pytest.raises(OptionError, match="take the same inputs"):
        compare(classifier(), classifier(size=8), np.ones((2, 3, 6, 6), np.float32))


def test_latency_is_that_of_both(images):
    found = compare(classifier(), classifier(), images, latency=True).outputs
    first, second = found.latency
    assert first.ratio == 1
    assert second.median_ms > 0


def test_progress_counts_samples(images):
    seen = []
    compare(classifier(), classifier(), images, batch_size=20, progress=lambda *x: seen.append(x))
    assert seen == [
        ("outputs", 20, 23),
        ("outputs", 23, 23),
        ("layers", 20, 23),
        ("layers", 23, 23),
    ]
