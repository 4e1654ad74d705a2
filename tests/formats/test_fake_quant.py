from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnx_esn.formats.fake_quant import quantized_values, write
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.number_formats import EPSILON, round_to, to_bytes
from onnx_esn.graph.weights import read_weight
from onnx_esn.passes.layers.costs import measured_view
from tests.passes.tiny import graph, tensor, weights

CODES = np.array([[0.5, -1.5, 1.5, 0.5], [0, 0, 0, 0], [3.5, -0.5, 0.5, 2.5]])
STEP = np.array([0.25, 0.0, 0.1])


def layers_of(model):
    return measured_view(model).layers


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_writes_the_stored_type_and_leaves_the_input_alone(dtype):
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = graph(
        [("Conv", ["x", "W"], ["y"], {})],
        {"x": ["N", 4, 2, 2]},
        {"W": weights(3, 4, 1, 1, dtype=dtype)},
        elem=elem,
    )
    before = model.SerializeToString()
    result = write(model, layers_of(model)[0], CODES, STEP)
    assert model.SerializeToString() == before
    expected = (STEP[:, None] * CODES).astype(dtype).reshape(3, 4, 1, 1)
    np.testing.assert_array_equal(tensor(result, "W"), expected)
    assert tensor(result, "W").dtype == dtype


def test_float_data_is_replaced():
    W = helper.make_tensor("W", TensorProto.FLOAT, [3, 4], np.ones(12))
    nodes = [("Gemm", ["x", "W"], ["y"], {"transB": 1})]
    model = graph(nodes, {"x": ["N", 4]}, {"W": W})
    result = write(model, layers_of(model)[0], CODES, STEP)
    np.testing.assert_array_equal(tensor(result, "W"), (STEP[:, None] * CODES).astype(np.float32))
    assert not result.graph.initializer[0].float_data


@pytest.mark.parametrize("path", ["constant", "identity", "transpose", "reshape", "cast"])
def test_ways_to_the_layer(path):
    nodes = {
        "constant": [("Constant", [], ["V"], {"value": numpy_helper.from_array(weights(4, 3))})],
        "identity": [("Identity", ["W"], ["V"], {})],
        "transpose": [("Transpose", ["W"], ["V"], {})],
        "reshape": [("Reshape", ["W", "shape"], ["V"], {})],
        "cast": [("Cast", ["W"], ["V"], {"to": TensorProto.FLOAT})],
    }[path]
    stored = {"transpose": (3, 4), "reshape": (2, 2, 3)}.get(path, (4, 3))
    dtype = np.float16 if path == "cast" else np.float32
    tensors = {"W": weights(*stored, dtype=dtype), "shape": np.array([4, 3])}
    model = graph([*nodes, ("MatMul", ["x", "V"], ["y"], {})], {"x": ["N", 4]}, tensors)
    result = write(model, layers_of(model)[0], CODES, STEP)
    onnx.checker.check_model(result)
    found = Constants(result).value("V")
    expected = (STEP[:, None] * CODES).astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(found, expected.T)
    assert len(result.graph.initializer) == len(model.graph.initializer)


@pytest.mark.parametrize("ir", [3, 8])
def test_other_readers_keep_the_old_values(ir):
    nodes = [
        ("Conv", ["x", "W"], ["a"], {}),
        ("ReduceSum", ["W"], ["b"], {"keepdims": 0}),
        ("Add", ["a", "b"], ["y"], {}),
    ]
    W = weights(3, 4, 1, 1)
    model = graph(nodes, {"x": ["N", 4, 2, 2]}, {"W": W}, ir=ir)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["N", 3, 2, 2]))
    if ir == 3:
        model.graph.input.append(helper.make_tensor_value_info("W", 1, W.shape))
    result = write(model, layers_of(model)[0], CODES, STEP)
    onnx.checker.check_model(result)
    np.testing.assert_array_equal(tensor(result, "W"), W)
    own = result.graph.node[0].input[1]
    assert own != "W"
    np.testing.assert_array_equal(
        tensor(result, own).reshape(3, 4), (STEP[:, None] * CODES).astype(np.float32)
    )


def test_computed_weights_are_refused():
    nodes = [("Mul", ["W", "g"], ["V"], {}), ("MatMul", ["x", "V"], ["y"], {})]
    tensors = {"W": weights(4, 3), "g": weights(3)}
    model = graph(nodes, {"x": ["N", 4]}, tensors)
    with pytest.raises(ValueError, match="computed in the graph"):
        write(model, layers_of(model)[0], CODES, STEP)


@settings(deadline=None)
@given(st.integers(0, 999), st.sampled_from([TensorProto.FLOAT, TensorProto.FLOAT16]))
def test_writing_what_was_read_changes_nothing(seed, data_type):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-64, 64, (4, 6)) + 0.5
    values = round_to(np.exp(rng.normal(size=(4, 1))) * codes, data_type)
    W = TensorProto(
        name="W", data_type=data_type, dims=[4, 6], raw_data=to_bytes(values, data_type)
    )
    nodes = [("Gemm", ["x", "W"], ["y"], {"transB": 1})]
    model = graph(nodes, {"x": ["N", 6]}, {"W": W}, elem=data_type)
    (layer,) = layers_of(model)
    weight = read_weight(layer, Constants(model))
    assert weight.step is not None
    for off in (0.0, 0.4, -0.4):
        step = weight.step * (1 + off * EPSILON[data_type])
        np.testing.assert_array_equal(quantized_values(weight, weight.codes, step), values)
    assert write(model, layer, weight.codes, weight.step) == model


@settings(deadline=None)
@given(st.lists(st.floats(-6e4, 6e4), min_size=1), st.sampled_from(sorted(EPSILON)))
def test_bytes_are_those_of_the_rounded_values(values, data_type):
    values = np.asarray(values)
    proto = TensorProto(
        data_type=data_type, dims=[len(values)], raw_data=to_bytes(values, data_type)
    )
    read = numpy_helper.to_array(proto).astype(np.float64)
    np.testing.assert_array_equal(read, round_to(values, data_type))
    assert (np.abs(read - values) <= np.abs(values) * EPSILON[data_type] / 2 + 6e-8).all()
