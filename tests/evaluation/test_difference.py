"""What `compare` says of nodes, tensors, layers and settings, against what was done."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_esn
from onnx_esn.errors import ImageSetError, ModelError, OptionError
from onnx_esn.evaluation.difference import compare
from onnx_esn.plans import PruningPlan
from tests.evaluation.nets import (
    classifier,
    copy,
    dequantized,
    folded,
    named,
    noisy,
    renamed,
    stored,
    value,
    with_value,
)
from tests.models import MODELS
from tests.net import Net


def layer(found, name):
    return next(x for x in found.layers if x.name == name)


def snr(before, after):
    before, after = before.astype(np.float64), after.astype(np.float64)
    return 10 * math.log10(np.square(before).sum() / np.square(after - before).sum())


# Nodes.


def test_attributes_that_say_the_default_are_no_difference():
    a = classifier()
    b = copy(a)
    node = named(b, "a")
    node.attribute.append(helper.make_attribute("auto_pad", "NOTSET"))
    node.attribute.append(helper.make_attribute("dilations", [1, 1]))
    del node.attribute[[x.name for x in node.attribute].index("kernel_shape")]
    # Schemas give no default for dilations: it follows from the kernel.
    changes = compare(a, b).nodes
    assert [c.attributes for c in changes] == [{"dilations": (None, [1, 1])}]


def test_an_attribute_that_differs():
    a = classifier()
    b = copy(a)
    pads = next(x for x in named(b, "b").attribute if x.name == "pads")
    pads.ints[:] = [0, 0, 0, 0]
    (change,) = compare(a, b).nodes
    assert change.name == ("b", "b")
    assert change.attributes == {"pads": ([1, 1, 1, 1], [0, 0, 0, 0])}
    assert not change.inputs


def test_a_bias_that_was_added():
    a = classifier()
    b = copy(a)
    b.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.float32), "new"))
    named(b, "a").input.append("new")
    found = compare(a, b)
    (change,) = found.nodes
    assert change.inputs == {2: (None, "new")}
    assert change.passed == ()
    (tensor,) = found.tensors
    assert tensor.name == (None, "new")
    assert tensor.shape == (None, (8,))


def test_a_folded_normalization_is_gone_and_its_readers_read_the_same():
    a = classifier()
    found = compare(a, folded(a))
    assert [c.op[0] for c in found.nodes if c.name[1] is None] == ["BatchNormalization"] * 2
    readers = [c for c in found.nodes if c.op[0] == "Relu"]
    assert readers == []  # the convolution makes what the normalization made
    assert {c.name[0] for c in found.nodes if c.differs} == {"a", "b"} | {
        c.name[0] for c in found.nodes if c.name[1] is None
    }


def test_rewired_nodes_are_changed_and_passed_on_ones_are_not():
    a = classifier()
    b = copy(a)
    b.graph.node.insert(0, helper.make_node("Identity", ["x"], ["same"], "same"))
    named(b, "a").input[0] = "same"
    found = compare(a, b)
    (new,) = [c for c in found.nodes if c.name[0] is None]
    assert new.op == (None, "Identity")
    (change,) = [c for c in found.nodes if None not in c.name]
    assert change.inputs == {0: ("x", "same")}
    assert change.passed == (0,)
    assert not change.differs
    b.graph.node[0].op_type = "Tanh"
    (change,) = [c for c in compare(a, b).nodes if None not in c.name]
    assert change.passed == ()
    assert change.differs


def test_swapped_operands_are_a_difference():
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 3, name="a")
    a = net.model(net.op("Sub", y, "x", name="s"))
    b = copy(a)
    named(b, "s").input[:] = reversed(named(a, "s").input)
    (change,) = compare(a, b).nodes
    assert set(change.inputs) == {0, 1}


def test_what_differs_inside_a_body_is_an_attribute_of_its_node():
    name = next(
        n for n, c in MODELS.items() if any(x.op_type == "If" for x in c.build().graph.node)
    )
    a = MODELS[name].build()
    b = copy(a)
    inner = next(x for n in b.graph.node if n.op_type == "If" for x in n.attribute)
    inner.g.node[0].name += "_other"
    assert [c.op[0] for c in compare(a, b).nodes] == ["If"]


# Tensors.


def test_values_that_differ():
    a = classifier()
    b = noisy(a, "a.weight")
    (tensor,) = compare(a, b).tensors
    before, after = value(a, "a.weight"), value(b, "a.weight")
    assert tensor.name == ("a.weight", "a.weight")
    assert tensor.changed is True
    assert tensor.max_abs == np.abs(after.astype(np.float64) - before).max()
    assert tensor.snr_db == pytest.approx(snr(before, after), rel=1e-12)


def test_more_values_than_are_compared_at_a_time(monkeypatch):
    from onnx_esn.evaluation.difference import tensors

    monkeypatch.setattr(tensors, "_CHUNK", 7)
    a = classifier()
    b = noisy(a, "a.weight")
    (tensor,) = compare(a, b).tensors
    before, after = value(a, "a.weight"), value(b, "a.weight")
    assert tensor.max_abs == np.abs(after.astype(np.float64) - before).max()
    assert tensor.snr_db == pytest.approx(snr(before, after), rel=1e-12)


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ([1.0, np.nan], [1.0, np.nan], False),
        ([0.0, 1.0], [-0.0, 1.0], False),
        ([1.0, 2.0], [1.0, np.nextafter(np.float32(2), np.float32(3))], True),
        ([1.0, np.inf], [1.0, np.inf], False),
        ([1.0, 2.0], [1.0, np.nan], True),
    ],
)
def test_when_values_differ(before, after, changed):
    a = with_value(classifier(), "t1", np.resize(np.array(before, np.float32), 8))
    b = with_value(classifier(), "t1", np.resize(np.array(after, np.float32), 8))
    assert bool(compare(a, b).tensors) == changed


def test_a_type_that_differs():
    a = classifier()
    b = with_value(a, "fc.weight", value(a, "fc.weight").astype(np.float16))
    b.graph.node.insert(0, helper.make_node("Cast", ["fc.weight"], ["wide"], "wide", to=1))
    named(b, "fc").input[1] = "wide"
    found = compare(a, b)
    (tensor,) = found.tensors
    assert tensor.type == ("float32", "float16")
    assert tensor.changed is True
    figures = layer(found, "fc")
    assert (figures.before.storage, figures.after.storage) == ("float32", "float16")
    assert figures.weight_max_abs == tensor.max_abs > 0


def test_constants_of_nodes_are_stored_tensors():
    def build(axis):
        net = Net(3, 6, 6)
        y = net.op("Constant", name="shift", value_floats=[axis] * 6)
        return net.model(net.op("Add", net.conv("x", 3, 4, name="a"), y))

    (tensor,) = compare(build(1.0), build(1.5)).tensors
    assert tensor.name == ("shift_out", "shift_out")
    assert tensor.max_abs == 0.5


def test_sparse_constants_that_differ():
    a = MODELS["sparse_constants"].build()
    b = copy(a)
    sparse = [x for n in b.graph.node for x in n.attribute if x.name == "sparse_value"]
    sparse[0].sparse_tensor.values.float_data[:] = []
    values = numpy_helper.to_array(sparse[0].sparse_tensor.values)
    sparse[0].sparse_tensor.values.CopyFrom(
        numpy_helper.from_array(values + 1, sparse[0].sparse_tensor.values.name)
    )
    assert not compare(a, b).same


def test_names_that_stand_for_other_tensors():
    """Two tensors have changed their names with each other; what reads them says which is which."""
    a = classifier(bn=False)
    b = copy(a)
    for tensor in b.graph.initializer:
        tensor.name = {"t1": "t3", "t3": "t1"}.get(tensor.name, tensor.name)
    names = [t.name for t in a.graph.initializer]
    assert {"t1", "t3"} <= set(names)
    for node in b.graph.node:
        node.input[:] = [{"t1": "t3", "t3": "t1"}.get(x, x) for x in node.input]
    found = compare(a, b)
    assert {t.name for t in found.tensors} == {("t1", "t3"), ("t3", "t1")}
    assert not any(t.changed for t in found.tensors)


# Layers.


def test_filters_that_are_gone_are_named():
    a = classifier()
    result = onnx_esn.prune(a, ratio=0.5)
    found = compare(a, result.model)
    assert isinstance(result.plan, PruningPlan)
    gone = {s.tensor: tuple(s.removed) for s in result.plan.slices if s.axis == 0}
    for name in ("a", "b"):
        figures = layer(found, name)
        assert figures.removed == gone[f"{name}.weight"] != ()
        assert figures.before.filters - len(figures.removed) == figures.after.filters
        assert figures.after.macs < figures.before.macs
    assert layer(found, "fc").removed == ()
    assert found.before.totals.macs == onnx_esn.inspect(a).totals.macs
    assert found.after.totals.macs == onnx_esn.inspect(result.model).totals.macs
    first = layer(found, "a")  # it reads what it read: the weights that are left are the same
    assert first.weight_max_abs == 0
    assert first.weight_snr_db == math.inf
    assert layer(found, "b").weight_snr_db is None


def test_two_models_that_were_pruned_one_from_the_other():
    a = onnx_esn.prune(classifier(), ratio=0.3).model
    b = onnx_esn.prune(a, ratio=0.3).model
    figures = layer(compare(a, b), "a")
    kept = [i for i in range(figures.before.filters) if i not in figures.removed]
    W = {m: value(model, "a.weight") for m, model in (("a", a), ("b", b))}
    assert len(kept) == len(W["b"]) < len(W["a"])
    np.testing.assert_array_equal(W["a"][kept], W["b"])


def test_filters_that_are_gone_without_a_record():
    a = classifier()
    b = onnx_esn.prune(a, ratio=0.5).model
    del b.metadata_props[:]
    figures = layer(compare(a, b), "a")
    assert figures.removed is None
    assert figures.weight_snr_db is None


def test_the_record_holds_under_other_names():
    """It is written in the names of the model that was pruned."""
    a = classifier()
    b = onnx_esn.prune(a, ratio=0.5).model
    known = [x.removed for x in compare(a, b).layers]
    assert [x.removed for x in compare(a, renamed(b)).layers] == known
    assert known[0]


def test_a_damaged_record_is_a_note():
    a = classifier()
    b = copy(a)
    b.metadata_props.add(key="onnx_esn.kept", value="[")
    assert any("onnx_esn.kept is damaged" in note for note in compare(a, b).notes)


def test_bits_and_noise_of_quantized_weights():
    a = classifier()
    b = onnx_esn.quantize(a, bits=3).model
    found = compare(a, b)
    for figures, weight in zip(found.layers, ("a.weight", "b.weight", "fc.weight"), strict=True):
        before, after = value(a, weight), value(b, weight)
        assert max(figures.after.filter_bits) == 3
        assert figures.after.esn_prime == pytest.approx(figures.after.macs * 3)
        assert figures.weight_snr_db == pytest.approx(snr(before, after), rel=1e-12)


@pytest.mark.parametrize("name", ["a", "fc"])
def test_weights_behind_dequantize_linear(name):
    a = classifier()
    rng = np.random.default_rng(2)
    W = value(a, f"{name}.weight")
    codes = rng.integers(-7, 8, W.shape).astype(np.int8)
    codes.reshape(len(W), -1)[:, 0] = 7
    step = (rng.uniform(0.01, 0.05, len(W))).astype(np.float32)
    found = compare(a, dequantized(a, name, codes, step))
    figures = layer(found, name)
    after = codes * step.reshape(-1, *[1] * (W.ndim - 1))
    assert figures.after.storage == "int8"
    assert figures.weight_snr_db == pytest.approx(snr(W, after), rel=1e-5)
    assert [c.op[1] for c in found.nodes if c.name[0] is None] == ["DequantizeLinear"]


def test_folded_weights_are_not_called_noise():
    a = classifier()
    figures = layer(compare(a, folded(a)), "a")
    assert figures.weight_snr_db is None
    assert figures.weight_max_abs is None


@pytest.mark.parametrize("op", ["gemm", "matmul", "left"])
def test_weights_of_every_layout(op):
    net = Net(5, batch=3)
    W = net.rng.normal(size=(5, 4)).astype(np.float32)
    if op == "gemm":
        y = net.op("Gemm", "x", net.store(W, "w"), name="l")
    elif op == "matmul":
        y = net.op("MatMul", "x", net.store(W, "w"), name="l")
    else:
        y = net.op("MatMul", net.store(W.T[:, :3].copy(), "w"), "x", name="l")
    a = net.model(y)
    b = noisy(a, "w")
    figures = layer(compare(a, b, np.ones((3, 5), np.float32)), "l")
    assert figures.weight_snr_db == pytest.approx(snr(value(a, "w"), value(b, "w")), rel=1e-12)
    expected = (np.ones((3, 5), np.float32) @ value(a, "w")) if op != "left" else None
    if expected is not None:
        got = np.ones((3, 5), np.float32) @ value(b, "w")
        assert figures.output_snr_db == pytest.approx(snr(expected, got), rel=1e-4)
    else:
        assert figures.output_snr_db is not None


# Settings, sizes, inputs.


def test_settings_that_differ():
    a = classifier()
    b = copy(a)
    b.ir_version = 9
    b.opset_import[0].version = 18
    b.metadata_props.add(key="long", value="x" * 1000)
    b.metadata_props[0].value = "somebody"
    b.producer_name = "other"
    changes = {s.what: (s.before, s.after) for s in compare(a, b).settings}
    assert changes.pop("metadata long")[1].endswith("(1000 characters)")
    assert changes == {
        "IR version": ("8", "9"),
        "opset": ("17", "18"),
        "metadata author": ("tests", "somebody"),
        "producer": ("tests", "other"),
    }


def test_inputs_and_outputs_that_differ():
    a, b = classifier(), classifier(batch=2, classes=5)
    changes = {s.what: (s.before, s.after) for s in compare(a, b).settings}
    output = a.graph.output[0].name
    assert changes == {
        "input 0": ("x: float [N, 3, 6, 6]", "x: float [2, 3, 6, 6]"),
        "output 0": (f"{output}: float [N, 4]", f"{output}: float [2, 5]"),
    }


def test_open_sizes_are_assumed_or_given():
    a = classifier()
    for model in (b := copy(a), a):
        for axis in (2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    found = compare(a, b)
    assert any("sizes are open" in note for note in found.notes)
    assert found.same
    found = compare(a, b, input_shape=(1, 3, 6, 6))
    assert not found.notes
    assert found.before.totals.macs == onnx_esn.inspect(classifier()).totals.macs
    images = np.ones((2, 3, 6, 6), np.float32)
    assert compare(a, b, images).before.totals.macs == found.before.totals.macs


def test_models_that_do_not_run_compare_as_files():
    a = classifier()
    relu = next(n for n in a.graph.node if n.op_type == "Relu")
    relu.op_type, relu.domain = "Unheard", "far.away"
    a.opset_import.append(helper.make_opsetid("far.away", 1))
    b = noisy(a, "a.weight")
    found = compare(a, b)
    assert [t.name[0] for t in found.tensors] == ["a.weight"]
    with pytest.raises(onnx_esn.errors.InferenceError, match="without images"):
        compare(a, b, np.ones((2, 3, 6, 6), np.float32))


def test_a_renamed_model_is_not_the_same():
    a = classifier()
    found = compare(a, renamed(a))
    assert not found.same
    assert not [c for c in found.nodes if c.differs]
    assert not any(x.changed for x in found.layers)


def test_wrong_options(tmp_path):
    a = classifier()
    with pytest.raises(OptionError, match="need images"):
        compare(a, a, latency=True)
    with pytest.raises(OptionError, match="3 names"):
        compare(a, a, names=["a", "b", "c"])
    with pytest.raises(ModelError, match="no such file"):
        compare(a, tmp_path / "none.onnx")


def test_the_document_is_plain_and_explained():
    a = classifier()
    b = onnx_esn.prune(onnx_esn.quantize(a, bits=3).model, ratio=0.3).model
    found = compare(a, b, np.ones((2, 3, 6, 6), np.float32), latency=True, names=["p", "q"])
    document = json.loads(json.dumps(found.to_document(), allow_nan=False))
    assert document["schema"] == "onnx-esn/difference/1"
    assert (document["before"]["name"], document["after"]["name"]) == ("p", "q")
    assert document["layers"][0]["removed"] == list(found.layers[0].removed)
    assert document["outputs"]["latency_ratio"] > 0
    assert document["layers"][0]["output_equal"] is False
    assert onnx_esn.compare is compare
    text = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    assert {key for key in _keys(document) if f"`{key}`" not in text} == set()


def _keys(document):
    """Field names at any depth; keys that are slots, bits or attributes are data."""
    if isinstance(document, list):
        return set().union(*map(_keys, document))
    if not isinstance(document, dict):
        return set()
    inner = set().union(*(_keys(v) for k, v in document.items() if k not in _DATA))
    return inner | set(document)


_DATA = ("attributes", "inputs", "bits")


def test_half_precision_types():
    for kind in (np.float16, onnx.helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)):
        net = Net(3, 6, 6, dtype=kind, opset=22)
        a = net.model(net.head(net.relu(net.conv("x", 3, 8, name="a")), 8))
        W = value(a, "a.weight")
        b = with_value(a, "a.weight", (W.astype(np.float32) * 1.5).astype(W.dtype))
        found = compare(a, b)
        assert layer(found, "a").weight_snr_db == pytest.approx(
            snr(W, value(b, "a.weight")), rel=1e-12
        )


def test_the_models_given_stay_as_they_are():
    a, b = classifier(), folded(classifier())
    before = a.SerializeToString(), b.SerializeToString()
    compare(a, b, np.ones((2, 3, 6, 6), np.float32))
    assert (a.SerializeToString(), b.SerializeToString()) == before
    assert stored(a, "a.weight").name == "a.weight"


def test_inputs_of_one_model_that_want_other_batches():
    net = Net(3, 6, 6, batch=2)
    net.input("z", 3, 3, 6, 6)
    model = net.model(net.relu("x"), net.relu("z"))
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 3
    images = {name: np.zeros((6, 3, 6, 6), np.float32) for name in ("x", "z")}
    with pytest.raises(ImageSetError, match="fixed batch sizes: 'x' 2, 'z' 3"):
        compare(model, copy(model), images)
