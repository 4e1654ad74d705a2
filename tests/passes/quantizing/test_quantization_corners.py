from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_esn.errors import OptionError, PlanError
from onnx_esn.passes.annotation import Annotate
from onnx_esn.passes.inspecting.inspection import inspect, total_cost
from onnx_esn.passes.quantizing.quantization import Quantize
from onnx_esn.plans import QuantizationPlan
from tests.passes.tiny import graph, two_convs, weights


def shared(second):
    nodes = [("Conv", ["x", "W"], ["a"], {}), second]
    return graph(nodes, {"x": ["N", 4, 3, 3]}, {"W": weights(4, 4, 1, 1)})


def test_a_shared_weight_is_quantized_once():
    model = shared(("Conv", ["a", "W"], ["y"], {}))
    result = Quantize(bits=2)(model)
    first, second = result.plan.layers
    assert (first.bits, first.step) == (second.bits, second.step)
    assert len(result.model.graph.initializer) == 1
    assert result.details["cost_after"] == total_cost(result.model) == 2 * 9 * 16 * 2
    with pytest.raises(PlanError, match="share a weight"):
        Quantize(plan=QuantizationPlan((first,)))(model)
    partly = Quantize(bits=2, exclude=("Conv_1",))(model)
    assert not partly.modified
    assert "shared with Conv_1" in partly.skipped[0].reason


def test_a_weight_read_in_two_layouts_is_left():
    model = shared(("ConvTranspose", ["a", "W"], ["y"], {}))
    result = Quantize(bits=2)(model)
    assert [s.node for s in result.skipped] == ["Conv_0", "ConvTranspose_1"]
    assert all("layouts" in s.reason for s in result.skipped)


def test_what_cannot_be_quantized_is_named():
    nodes = [
        ("Mul", ["W", "g"], ["V"], {}),
        ("Conv", ["x", "V"], ["a"], {}),
        ("DequantizeLinear", ["Q", "s"], ["D"], {}),
        ("Conv", ["a", "D"], ["b"], {}),
        ("Conv", ["b", "inf"], ["y"], {}),
    ]
    tensors = {
        "W": weights(4, 3, 1, 1),
        "g": weights(4, 1, 1, 1),
        "Q": np.full((4, 4, 1, 1), 4, np.int8),
        "s": np.float32(0.1),
        "inf": np.full((2, 4, 1, 1), np.inf, np.float32),
    }
    tensors["s"] = np.array(0.1, np.float32)
    result = Quantize(bits=4)(graph(nodes, {"x": ["N", 3, 3, 3]}, tensors))
    reasons = {s.node: s.reason for s in result.skipped}
    assert "computed in the graph" in reasons["Conv_1"]
    assert "not stored as floats" in reasons["Conv_3"]
    assert "not finite" in reasons["Conv_4"]
    assert not result.modified


def test_bfloat16_gets_seven_bits_at_most():
    values = weights(64, 27).astype(np.float32)
    W = helper.make_tensor("W", TensorProto.BFLOAT16, [64, 27], values.ravel())
    nodes = [("Gemm", ["x", "W"], ["y"], {"transB": 1})]
    model = graph(nodes, {"x": ["N", 27]}, {"W": W}, elem=TensorProto.BFLOAT16)
    result = Quantize(bits=8)(model)
    assert max(result.plan.layers[0].bits) == 7
    assert "7 bits" in result.skipped[0].reason
    assert inspect(result.model).layers[0].quantized


def test_float16_filters_too_weak_for_their_codes_get_fewer():
    W = weights(8, 27, dtype=np.float16)
    W[0] = (W[0].astype(np.float32) * 2e-6).astype(np.float16)  # subnormal
    nodes = [("Gemm", ["x", "W"], ["y"], {"transB": 1})]
    model = graph(nodes, {"x": ["N", 27]}, {"W": W}, elem=TensorProto.FLOAT16)
    result = Quantize(bits=8)(model)
    assert 0 < result.plan.layers[0].bits[0] < 8
    assert inspect(result.model).layers[0].filter_bits == result.plan.layers[0].bits


def test_open_axes():
    model = graph(
        [("Conv", ["x", "W"], ["y"], {})], {"x": ["N", 3, "H", "W_"]}, {"W": weights(4, 3, 3, 3)}
    )
    result = Quantize(bits=4)(model)
    assert result.modified
    assert result.details["cost_after"] is None
    with pytest.raises(OptionError, match="--input-shape"):
        Quantize(target_cost="10%")(model)
    assert Quantize(target_cost="10%", input_shape=(1, 3, 8, 8))(model).details["cost_after"] > 0


def test_metadata_survives_and_a_stale_annotation_does_not():
    model = Annotate()(two_convs(ir=10)).model
    model.metadata_props.add(key="author", value="me")
    model.graph.node[0].metadata_props.add(key="torch", value="conv")
    result = Quantize(bits=4)(model).model
    assert [(p.key, p.value) for p in result.metadata_props] == [("author", "me")]
    assert [p.key for p in result.graph.node[0].metadata_props] == ["torch"]


def test_weights_close_to_a_grid_are_put_on_it():
    # Coordinates of a sampling grid: three bits almost fit them, but only to a few last digits.
    W = np.stack([np.linspace(-31, 31, 32) / 32 * np.float32(1 + 3e-7), np.ones(32)]).T
    W = np.repeat(W, 2, axis=1).astype(np.float32)
    model = graph([("Gemm", ["x", "W"], ["y"], {"transB": 1})], {"x": ["N", 4]}, {"W": W})
    for options in ({"bits": 8}, {"bits": 6}, {"target_cost": "12%"}):
        result = Quantize(**options)(model)
        assert inspect(result.model).totals.esn_prime == result.details["cost_after"]
