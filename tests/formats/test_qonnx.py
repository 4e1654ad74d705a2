"""Format `qonnx`: every way to a weight, exact, and read back with the same bits."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import onnx_esn
from onnx_esn.errors import ModelError
from onnx_esn.formats.qonnx import write
from onnx_esn.formats.qonnx_folding import folded
from onnx_esn.graph import metadata
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.number_formats import round_to, to_bytes
from onnx_esn.graph.quant_operators import DOMAIN
from onnx_esn.graph.shapes import guessed_facts
from onnx_esn.graph.weights import read_weight
from onnx_esn.passes.layers.costs import measured_view
from tests.graph.random_graphs import random_model, sizes_of_run
from tests.net import Net, feeds_for
from tests.oracles.equivalence import relative_difference, run
from tests.oracles.quant import expanded
from tests.passes.tiny import graph, two_convs

QUANT = "qonnx.custom_op.general"


def fake(model, bits=3, **options):
    return onnx_esn.quantize(model, bits=bits, **options).model


def planted(*shape, bits=3, axis=0, seed=0, zeros=()):
    """Float32 weights on a mid-rise grid, a step for each index of an axis."""
    rng = np.random.default_rng(seed)
    top = 2.0 ** (bits - 1)
    codes = rng.integers(-top, top, shape) + 0.5
    along = np.moveaxis(codes, axis, 0)
    along[:, ..., 0] = np.where(along[:, ..., 0] > 0, top - 0.5, 0.5 - top)  # all bits are used
    step = round_to(rng.uniform(0.1, 1, shape[axis]), TensorProto.FLOAT)
    step[list(zeros)] = 0.0
    return (codes * step.reshape([-1 if a == axis else 1 for a in range(len(shape))])).astype("f")


def figures(model, **options):
    """What is found of each layer, but for the name of the tensor that it reads."""
    return [replace(x, weight="") for x in onnx_esn.inspect(model, **options).layers]


def quants(model):
    return [n for n in model.graph.node if n.op_type == "Quant"]


def assert_same(model, written, sizes=None):
    """Valid, and the same outputs to the last bit, as ONNX's own operators compute a Quant."""
    onnx.checker.check_model(written, full_check=True)
    onnx.shape_inference.infer_shapes(written, strict_mode=True, data_prop=True)
    feeds = feeds_for(model, sizes or guessed_facts(model, Constants(model), batch=2).sizes)
    expected = run(model, feeds)
    assert relative_difference(expected, run(expanded(written), feeds)) == 0.0
    assert relative_difference(expected, run(folded(written), feeds)) == 0.0
    onnx.checker.check_model(folded(written), full_check=True)


WAYS = {
    "conv": ([("Conv", ["x", "W"], ["y"], {})], (6, 4, 3, 3), 0),
    "grouped": ([("Conv", ["x", "W"], ["y"], {"group": 2})], (6, 2, 3, 3), 0),
    "depthwise": ([("Conv", ["x", "W"], ["y"], {"group": 4})], (4, 1, 3, 3), 0),
    "deconv": ([("ConvTranspose", ["x", "W"], ["y"], {})], (4, 6, 2, 2), 1),
    "transB": ([("Gemm", ["x", "W"], ["y"], {"transB": 1})], (6, 16), 0),
    "gemm": ([("Gemm", ["x", "W"], ["y"], {})], (16, 6), 1),
    "matmul": ([("MatMul", ["x", "W"], ["y"], {})], (16, 6), 1),
    "matmul, left": ([("MatMul", ["W", "x"], ["y"], {})], (6, 16), 0),
    "transposed": (
        [("Transpose", ["W"], ["V"], {}), ("MatMul", ["x", "V"], ["y"], {})],
        (6, 16),
        0,
    ),
    "renamed": ([("Identity", ["W"], ["V"], {}), ("Conv", ["x", "V"], ["y"], {})], (6, 4, 3, 3), 0),
}


@pytest.mark.parametrize("ir", [3, 8, 10])
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_the_layer(way, ir):
    nodes, shape, axis = WAYS[way]
    sizes = {4: [2, 4, 5, 5], 2: [16, 16]}[len(shape)]
    W = planted(*shape, axis=axis)
    model = graph(nodes, {"x": sizes}, {"W": W}, ir=ir)
    if ir == 3:
        model.graph.input.append(helper.make_tensor_value_info("W", 1, W.shape))
        inferred = onnx.shape_inference.infer_shapes(model).graph.output[0]
        model.graph.output[0].CopyFrom(inferred)
    before = model.SerializeToString()
    written = write(model)
    assert model.SerializeToString() == before
    assert_same(model, written.model, {"x": sizes})
    (layer,), (quant,) = written.layers, quants(written.model)
    assert (layer.form, layer.type, layer.reason, written.forms()) == (
        "Quant",
        "float32",
        "",
        {"Quant": 1},
    )
    stored = {t.name: numpy_helper.to_array(t) for t in written.model.graph.initializer}
    assert set(stored) == set(quant.input)
    assert layer.bytes == sum(v.nbytes for v in stored.values())
    scale = stored[quant.input[1]]
    read = stored[quant.input[0]]
    wide = [n for n in scale.shape if n > 1]
    assert wide == [shape[axis]]
    assert all(n in (1, full) for n, full in zip(scale.shape, read.shape, strict=True))
    assert stored[quant.input[3]].shape == ()  # qonnx takes a scalar only
    assert figures(written.model) == figures(model)


def test_grouped_transposed_convolution_has_filters_on_two_axes():
    """Filter g·M/G + m lies at [rows of group g, m]."""
    W = planted(4, 3, 2, 2, axis=1)
    W[2:] *= 0.5  # other steps in the second group
    nodes = [("ConvTranspose", ["x", "W"], ["y"], {"group": 2})]
    model = graph(nodes, {"x": ["N", 4, 3, 3]}, {"W": W})
    written = write(model)
    assert_same(model, written.model)
    (quant,) = quants(written.model)
    stored = {t.name: tuple(t.dims) for t in written.model.graph.initializer}
    assert stored[quant.input[1]] == (4, 3, 1, 1)
    assert figures(written.model) == figures(model)


def test_weights_of_constant_nodes_become_initializers():
    W = numpy_helper.from_array(planted(6, 4, 3, 3))
    nodes = [("Constant", [], ["W"], {"value": W}), ("Conv", ["x", "W"], ["y"], {})]
    model = graph(nodes, {"x": ["N", 4, 5, 5]}, {})
    written = write(model)
    assert_same(model, written.model)
    assert [n.op_type for n in written.model.graph.node] == ["Quant", "Conv"]


def test_a_shared_weight_has_one_quant_and_other_readers_keep_the_floats():
    nodes = [
        ("Conv", ["x", "W"], ["a"], {"pads": [1] * 4}),
        ("Conv", ["a", "W"], ["b"], {"pads": [1] * 4}),
        ("ReduceSum", ["W"], ["c"], {"keepdims": 0}),
        ("Add", ["b", "c"], ["y"], {}),
    ]
    model = graph(nodes, {"x": ["N", 4, 5, 5]}, {"W": planted(4, 4, 3, 3)})
    written = write(model)
    assert_same(model, written.model)
    (quant,) = quants(written.model)
    readers = {n.op_type: list(n.input) for n in written.model.graph.node if n.op_type != "Conv"}
    assert readers["ReduceSum"] == ["W"]
    assert [n.input[1] for n in written.model.graph.node if n.op_type == "Conv"] == [
        quant.output[0]
    ] * 2
    assert [layer.bytes > 0 for layer in written.layers] == [True, False]


@pytest.mark.parametrize("ir", [8, 10])
@pytest.mark.parametrize("zero_points", [True, False])
def test_mixed_bits_take_the_widest_and_are_told(ir, zero_points):
    W = np.concatenate([planted(3, 4, 3, 3, bits=b, zeros=[2] if b == 2 else []) for b in (2, 5)])
    model = graph([("Conv", ["x", "W"], ["y"], {})], {"x": ["N", 4, 5, 5]}, {"W": W}, ir=ir)
    written = write(model, zero_points=zero_points)
    assert_same(model, written.model)
    (quant,) = quants(written.model)
    stored = {t.name: numpy_helper.to_array(t) for t in written.model.graph.initializer}
    assert stored[quant.input[3]] == (5 if zero_points else 6)
    true = [2, 2, 0, 5, 5, 5]
    if ir == 10:
        assert json.loads(metadata.read(quant)["quant_bits"]) == true
    else:
        assert json.loads(metadata.read(written.model)["quant_bits"]) == {quant.name: true}
    assert written.notes[0].startswith("1 of 1 weights have filters of different bits")
    assert any("zero point" in note for note in written.notes) == zero_points
    (layer,) = written.layers
    assert layer.reason.startswith("filters of 0 to 5 bits")
    assert onnx_esn.inspect(written.model).layers[0].filter_bits == tuple(true)


@pytest.mark.parametrize(
    ("options", "zero_points", "signed", "bits"),
    [
        ({"bits": 4}, True, 0, 4),
        ({"bits": 4}, False, 1, 5),
        ({"bits": 1}, True, 1, 1),
        ({"bits": 4, "quantizer": "mid-tread"}, True, 1, 4),
    ],
)
def test_whole_models(options, zero_points, signed, bits):
    model = fake(two_convs(seed=3), **options)
    written = write(model, zero_points=zero_points)
    assert_same(model, written.model)
    assert {n.domain for n in quants(written.model)} == {QUANT}
    assert [o.domain for o in written.model.opset_import] == ["", QUANT]
    stored = {t.name: numpy_helper.to_array(t) for t in written.model.graph.initializer}
    for quant in quants(written.model):
        attrs = {a.name: helper.get_attribute_value(a) for a in quant.attribute}
        assert attrs == {"signed": signed, "narrow": signed, "rounding_mode": b"ROUND"}
        assert stored[quant.input[3]] == bits
        assert (stored[quant.input[2]] == (0 if signed else (2**bits - 1) / 2)).all()
    noted = {
        a.tensor_name: {p.key: p.value for p in a.quant_parameter_tensor_names}
        for a in written.model.graph.quantization_annotation
    }
    width = {"finn_datatype": f"SCALEDINT<{bits}>"}
    assert noted == {n.output[0]: width for n in quants(written.model)}
    assert figures(written.model) == figures(model)
    totals = [onnx_esn.inspect(m).totals for m in (written.model, model)]
    assert totals[0] == replace(totals[1], initializer_bytes=totals[0].initializer_bytes)


def test_annotation_and_metadata_of_nodes_survive():
    model = onnx_esn.annotate(fake(two_convs(ir=10))).model
    written = write(model).model
    layers = [n for n in written.graph.node if n.op_type in ("Conv", "Gemm")]
    assert [metadata.read(n)["bits"] for n in layers] == ["3", "3", "3"]
    assert metadata.read(written) == metadata.read(model)
    again = onnx_esn.annotate(written).model
    assert [metadata.read(n) for n in again.graph.node] == [
        metadata.read(n) for n in written.graph.node
    ]
    assert metadata.read(again)["filter_bits"] == metadata.read(written)["filter_bits"]


def test_off_the_grid_stays_and_is_told():
    model = onnx_esn.quantize(two_convs(), bits=3, exclude=["Gemm*"]).model
    written = write(model)
    assert_same(model, written.model)
    assert [(x.form, x.reason) for x in written.layers] == [
        ("Quant", ""),
        ("Quant", ""),
        ("float", "its weights lie on no grid"),
    ]
    untouched = write(two_convs())
    assert untouched.model == two_convs()
    assert untouched.forms() == {"float": 3}


def test_a_second_time_changes_nothing():
    first = write(fake(two_convs())).model
    again = write(first)
    assert again.model == first
    assert {(x.form, x.reason) for x in again.layers} == {("Quant", "it has been a Quant before")}


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_refused(dtype):
    model = fake(two_convs(dtype=dtype))
    name = np.dtype(dtype).name.replace("float64", "double")
    with pytest.raises(ModelError, match=rf"Conv_0: its weights are {name}, and .* float32 only"):
        write(model)


def test_float16_weights_behind_a_cast_are_read_as_float32():
    W = planted(6, 16, bits=2).astype(np.float16)
    W = (np.sign(W) * np.where(np.abs(W) > np.abs(W).min(1, keepdims=True) * 2, 1.5, 0.5)).astype(
        np.float16
    )
    nodes = [("Cast", ["W"], ["V"], {"to": TensorProto.FLOAT}), ("Gemm", ["x", "V"], ["y"], {})]
    model = graph(nodes, {"x": ["N", 6]}, {"W": W})
    written = write(model)
    assert_same(model, written.model)
    assert written.forms() == {"Quant": 1}


def test_float16_values_that_no_float32_scale_gives_stay():
    codes = np.arange(-127.5, 128, 2.0).reshape(4, 32)
    W = (codes * np.array([[0.1], [0.3], [0.07], [0.013]])).astype(np.float16)
    nodes = [("Cast", ["W"], ["V"], {"to": TensorProto.FLOAT})]
    nodes.append(("Gemm", ["x", "V"], ["y"], {"transB": 1}))
    model = graph(nodes, {"x": ["N", 32]}, {"W": W})
    assert onnx_esn.inspect(model).layers[0].quantized
    written = write(model)
    assert written.model == model
    (layer,) = written.layers
    assert (layer.form, layer.type) == ("float", "float16")
    assert layer.reason == "no float32 scale gives its values, which were rounded to float16"


def test_weights_inside_branches_stay_and_are_named():
    net = Net(3, 6, 6)
    net.inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    y = net.conv("x", 3, 8, name="a")
    bodies = []
    for k in (1, 2):
        body = Net(seed=k, prefix=f"b{k}_")
        inner = body.conv(y, 8, 8, name=f"b{k}_conv")
        bodies.append(body.body(net.info(inner, "N", 8, 6, 6)))
    y = net.op("If", "flag", name="choice", then_branch=bodies[0], else_branch=bodies[1])
    model = fake(net.model(y, shapes={y: ["N", 8, 6, 6]}))
    written = write(model)
    assert len(quants(written.model)) == 1
    assert "choice: the 2 Conv inside this If stay as they are" in written.notes
    onnx.checker.check_model(written.model, full_check=True)


def test_names_that_are_taken_are_left_alone():
    nodes = [
        ("Conv", ["x", "W"], ["W_quant"], {}),
        ("Relu", ["W_quant"], ["quant_bits_3"], {}),
        ("Identity", ["quant_bits_3"], ["y"], {}),
    ]
    model = graph(nodes, {"x": ["N", 4, 5, 5]}, {"W": planted(6, 4, 3, 3)})
    assert_same(model, write(model).model)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**6), st.floats(1.0, 2.0, exclude_max=True), st.sampled_from([2, 4, 8]))
def test_steps_are_read_back_to_the_last_bit(seed, mantissa, bits):
    """Neighbours of a step are one ulp away, wherever in its binade it lies."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (1, 400)) + 0.5
    step = round_to([mantissa], TensorProto.FLOAT)
    values = round_to(step[:, None] * codes, TensorProto.FLOAT)
    W = TensorProto(name="W", data_type=1, dims=[1, 400], raw_data=to_bytes(values, 1))
    model = graph([("Gemm", ["x", "W"], ["y"], {"transB": 1})], {"x": ["N", 400]}, {"W": W})
    (layer,) = measured_view(model).layers
    weight = read_weight(layer, Constants(model))
    assert weight.step is not None
    read = round_to(weight.step, TensorProto.FLOAT)
    np.testing.assert_array_equal(round_to(read[:, None] * weight.codes, 1), values)


def test_no_weight_is_off_in_its_last_bit():
    """Two codes, and a step with a mantissa near 2: its neighbours were left out once."""
    step = np.float32(1.9)
    for k in range(200):
        step = np.nextafter(step, np.float32(2))
        codes = np.tile([0.5, -1.5, 1.5, -0.5, 1.5], 8)
        model = graph(
            [("Gemm", ["x", "W"], ["y"], {"transB": 1})],
            {"x": ["N", 40]},
            {"W": (step * codes.astype(np.float32))[None]},
        )
        written = write(model)
        assert written.forms() == {"Quant": 1}, k
        assert not [note for note in written.notes if "last bit" in note], k


def test_weights_scaled_once_more_come_to_lie_on_the_levels():
    """Two roundings: of Δ·W_int, and of that times a factor for each filter."""
    W = planted(16, 200, bits=5)
    factors = np.random.default_rng(1).uniform(0.5, 2, (16, 1)).astype(np.float32)
    model = graph(
        [("Gemm", ["x", "W"], ["y"], {"transB": 1})], {"x": ["N", 200]}, {"W": W * factors}
    )
    written = write(model)
    assert written.forms() == {"Quant": 1}
    (note,) = (note for note in written.notes if "last bit" in note)
    assert 0 < int(note.split()[0]) < 3200
    feeds = feeds_for(model, {"x": (2, 200)})
    expected, got = run(model, feeds), run(folded(written.model), feeds)
    assert 0 < relative_difference(expected, got) < 1e-6
    assert figures(written.model)[0].filter_bits == figures(model)[0].filter_bits


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed):
    model = random_model(random.Random(seed))
    model = fake(model, bits=1 + seed % 8)
    sizes = sizes_of_run(model, 0)
    found = figures(model, input_shape=sizes)
    try:
        written = write(model, zero_points=bool(seed % 3))
    except ModelError:
        assert {x.storage for x in found if x.quantized} - {"float32"}
        return
    feeds = feeds_for(model, sizes)
    onnx.checker.check_model(written.model, full_check=True)
    assert relative_difference(run(model, feeds), run(folded(written.model), feeds)) == 0.0
    assert figures(written.model, input_shape=sizes) == found


def test_folding_leaves_no_trace():
    model = fake(two_convs())
    result = folded(write(model).model)
    assert not quants(result)
    assert not result.graph.quantization_annotation
    assert [o.domain for o in result.opset_import] == [""]
    assert len(result.graph.initializer) == len(model.graph.initializer)
    assert DOMAIN == QUANT
