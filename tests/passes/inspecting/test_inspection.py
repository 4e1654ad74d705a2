from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_esn.errors import ModelError, OptionError
from onnx_esn.passes.inspecting.inspection import inspect, total_cost
from onnx_esn.passes.quantizing.quantization import Quantize
from tests.passes.tiny import graph, two_convs, weights

KERNEL = {"kernel_shape": [3, 3]}


def on_grid(step, codes, dtype=np.float32):
    return (np.asarray(step)[:, None] * codes).astype(dtype)


def test_a_float_model_costs_its_storage_width():
    inspection = inspect(two_convs())
    first, depthwise, last = inspection.layers
    assert (first.name, first.op, first.weight) == ("Conv_0", "Conv", "W1")
    assert (first.filters, first.channels_in, first.channels_out) == (8, 3, 8)
    assert (first.kernel, first.output_size, first.groups) == ((3, 3), (6, 6), 1)
    assert first.macs == 36 * 8 * 27
    assert first.parameters == 8 * 27
    assert first.bits == {32: 8}
    assert (first.storage, first.storage_bits, first.quantized) == ("float32", 32, False)
    assert first.esn_a is None
    assert first.esn_d == first.esn_prime == 32 * first.macs
    assert first.esn_d_memory == 32 * first.parameters
    assert (depthwise.groups, depthwise.channels_in, depthwise.macs) == (8, 8, 36 * 8 * 9)
    assert (last.op, last.output_size, last.kernel, last.macs) == ("Gemm", (), (), 32)
    totals = inspection.totals
    assert totals.macs == sum(x.macs for x in inspection.layers)
    assert totals.bits_per_mac == totals.bits_per_weight == 32
    assert totals.esn_a is None
    assert total_cost(two_convs()) == totals.esn_prime == 32 * totals.macs
    assert not inspection.unresolved


def test_codes_on_a_grid_are_counted():
    codes = np.array([[0.5, -1.5, 3.5, 2.5, 0.5, -0.5], [0.5, -0.5, 0.5, -0.5, 0.5, 0.5], [0] * 6])
    W = on_grid([0.3, 0.1, 0.0], codes).reshape(3, 6, 1, 1)
    W = np.concatenate([W] * 4)
    model = graph([("Conv", ["x", "W"], ["y"], {})], {"x": ["N", 6, 2, 5]}, {"W": W})
    (layer,) = inspect(model).layers
    positions = 10
    assert layer.quantized
    assert layer.filter_bits == (3, 1, 0) * 4
    assert layer.bits == {0: 4, 1: 4, 3: 4}
    assert layer.esn_a == 4 * positions * (codes**2).sum()
    assert layer.esn_d == 4 * positions * ((1 + 2 + 3 + 3 + 1 + 1) + 6)
    assert layer.esn_prime == 4 * positions * 6 * (3 + 1)
    assert layer.esn_a_memory == 4 * (codes**2).sum()
    assert layer.esn_d_memory == 4 * 17
    assert layer.esn_prime_memory == 4 * 6 * 4


@pytest.mark.parametrize(("dtype", "bits"), [(np.float16, 16), (np.float64, 64)])
def test_other_float_widths(dtype, bits):
    inspection = inspect(two_convs(dtype=dtype))
    assert inspection.totals.bits_per_mac == bits
    assert inspection.layers[0].storage == np.dtype(dtype).name


def test_bfloat16():
    W = helper.make_tensor("W", TensorProto.BFLOAT16, [4, 3], np.sqrt(np.arange(12)))
    model = graph(
        [("MatMul", ["x", "W"], ["y"], {})], {"x": ["N", 4]}, {"W": W}, elem=TensorProto.BFLOAT16
    )
    (layer,) = inspect(model).layers
    assert (layer.storage, layer.esn_prime) == ("bfloat16", 16 * 12)


@pytest.mark.parametrize("opset", [13, 21])
def test_bfloat16_before_its_operator_set(opset):
    W = helper.make_tensor("W", TensorProto.BFLOAT16, [4, 3, 1, 1], np.sqrt(np.arange(12)))
    model = graph(
        [("Conv", ["x", "W"], ["y"], {})],
        {"x": ["N", 3, 8, 8]},
        {"W": W},
        elem=TensorProto.BFLOAT16,
        opset=opset,
    )
    with pytest.raises(ModelError, match=rf"Conv.*not valid at operator set {opset}.*bfloat16"):
        inspect(model)


def test_weights_cast_up_cost_what_is_stored():
    nodes = [("Cast", ["W"], ["V"], {"to": TensorProto.FLOAT}), ("MatMul", ["x", "V"], ["y"], {})]
    model = graph(nodes, {"x": ["N", 4]}, {"W": weights(4, 6, dtype=np.float16)})
    assert inspect(model).layers[0].storage == "float16"


def test_integers_behind_dequantize_cost_their_width():
    nodes = [
        ("DequantizeLinear", ["W", "scale", "zero"], ["V"], {"axis": 0}),
        ("Conv", ["x", "V"], ["y"], KERNEL),
    ]
    q = np.random.default_rng(0).integers(-128, 127, (4, 3, 3, 3)).astype(np.int8)
    tensors = {"W": q, "scale": np.full(4, 0.01, np.float32), "zero": np.zeros(4, np.int8)}
    (layer,) = inspect(graph(nodes, {"x": ["N", 3, 5, 5]}, tensors)).layers
    assert (layer.storage, layer.bits, layer.quantized) == ("int8", {8: 4}, True)
    assert layer.esn_prime == 8 * layer.macs
    assert layer.esn_a == 9 * (q.astype(np.int64) ** 2).sum()


def test_a_shared_weight_is_stored_once():
    nodes = [("Conv", ["x", "W"], ["a"], {}), ("Identity", ["W"], ["V"], {})]
    nodes.append(("Conv", ["a", "V"], ["y"], {}))
    inspection = inspect(graph(nodes, {"x": ["N", 4, 3, 3]}, {"W": weights(4, 4, 1, 1)}))
    assert inspection.totals.macs == 2 * 9 * 16
    assert inspection.totals.parameters == 16
    assert inspection.totals.esn_prime_memory == 16 * 32


def test_open_axes_need_a_shape():
    model = graph(
        [("Conv", ["x", "W"], ["y"], {})], {"x": ["N", 3, "H", "W"]}, {"W": weights(4, 3, 3, 3)}
    )
    with pytest.raises(OptionError, match="--input-shape"):
        inspect(model)
    small = inspect(model, input_shape=(1, 3, 5, 5))
    assert inspect(model, input_shape={"x": (4, 3, 5, 5)}).totals.macs == small.totals.macs
    assert small.input_shapes == {"x": (1, 3, 5, 5)}
    for wrong in ((1, 4, 5, 5), (3, 5, 5), {"z": (1, 3, 5, 5)}, (1, 3, 0, 5)):
        with pytest.raises(OptionError):
            inspect(model, input_shape=wrong)


def test_a_bare_shape_needs_a_single_input():
    nodes = [("Add", ["x", "z"], ["a"], {}), ("Conv", ["a", "W"], ["y"], {})]
    inputs = {"x": ["N", 3, 5, 5], "z": ["N", 3, 5, 5]}
    model = graph(nodes, inputs, {"W": weights(4, 3, 3, 3)})
    with pytest.raises(OptionError, match="x, z"):
        inspect(model, input_shape=(1, 3, 5, 5))


def test_what_cannot_be_counted_is_named():
    nodes = [
        ("NonZero", ["x"], ["n"], {}),
        ("Cast", ["n"], ["f"], {"to": TensorProto.FLOAT}),
        ("Transpose", ["f"], ["t"], {}),
        ("MatMul", ["t", "W"], ["m"], {}),
        ("Conv", ["x", "x"], ["y"], {}),
    ]
    inspection = inspect(graph(nodes, {"x": [1, 2, 3, 3]}, {"W": weights(4, 2)}), groups=False)
    reasons = {u.node: u.reason for u in inspection.unresolved}
    assert "shape" in reasons["MatMul_3"]
    assert "run time" in reasons["Conv_4"]
    (layer,) = inspection.layers
    assert (layer.macs, layer.esn_d, layer.esn_prime) == (None, None, None)
    assert inspection.totals.macs == 0
    assert inspection.totals.bits_per_mac is None
    json.dumps(inspection.to_document(), allow_nan=False)


def test_layers_in_a_subgraph_are_named():
    inner = graph([("Conv", ["x", "W"], ["z"], {})], {}, {}, output="z").graph
    nodes = [
        ("ReduceMax", ["x"], ["largest"], {"keepdims": 0}),
        ("Greater", ["largest", "limit"], ["flag"], {}),
        ("If", ["flag"], ["y"], {"then_branch": inner, "else_branch": inner}),
    ]
    constants = {"limit": np.array(0, np.float32), "W": weights(4, 3, 3, 3)}
    model = graph(nodes, {"x": ["N", 3, 5, 5]}, constants)
    (found,) = inspect(model, groups=False).unresolved
    assert found.node == "If_2"
    assert "2 Conv" in found.reason


def test_groups_are_listed():
    inspection = inspect(two_convs())
    assert inspection.groups is not None
    group = next(g for g in inspection.groups if g.name == "Conv_0")
    assert (group.width, group.prunable, group.reason) == (8, 8, "")
    assert [(m.node, m.op, m.filters, m.depthwise) for m in group.members] == [
        ("Conv_0", "Conv", 8, False),
        ("Conv_3", "Conv", 8, True),
    ]
    locked = next(g for g in inspection.groups if g.name == "Gemm_6")
    assert locked.prunable == 0
    assert locked.reason


def test_the_document(tmp_path):
    model = Quantize(bits=3)(two_convs()).model
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    document = inspect(path).to_document()
    assert document == inspect(model).to_document()
    assert document["schema"] == "onnx-esn/inspection/1"
    assert document["layers"][0]["bits"] == {"3": 8}
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert isinstance(document["totals"]["esn_prime"], int)
    assert "groups" not in inspect(model, groups=False).to_document()


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        inspect(tmp_path / "absent.onnx")
