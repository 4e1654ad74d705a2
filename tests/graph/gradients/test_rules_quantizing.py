"""QuantizeLinear and DequantizeLinear: what learned step sizes prescribe, element by element."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.gradients.backward import append_backward
from onnx_esn.graph.shapes import infer_facts

SHAPE = (2, 3, 4)


def pair(dtype, scale, zero, r, axis=None):
    """loss = Σ r·dequantized(quantized(x)), with x and the scale as inputs."""
    attrs = {} if axis is None else {"axis": axis}
    zeros = [] if zero is None else ["zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", *zeros], ["q"], **attrs),
        helper.make_node("DequantizeLinear", ["q", "scale", *zeros], ["y"], **attrs),
        helper.make_node("Mul", ["y", "r"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed"], ["loss"], keepdims=0),
    ]
    stored = [numpy_helper.from_array(r, "r")]
    if zero is not None:
        stored.append(numpy_helper.from_array(np.asarray(zero, dtype), "zero"))
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, np.shape(scale)),
        ],
        [helper.make_tensor_value_info("loss", TensorProto.FLOAT, ())],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def gradients(model, feeds):
    facts = infer_facts(model, {n: v.shape for n, v in feeds.items()}, Constants(model))
    found = append_backward(model, facts, "loss", ["x", "scale"])
    assert not found.blocked
    for name in ("x", "scale"):
        model.graph.output.append(
            helper.make_tensor_value_info(
                found.gradients[name], TensorProto.FLOAT, feeds[name].shape
            )
        )
    session = ort.InferenceSession(model.SerializeToString())
    return session.run([found.gradients[n] for n in ("x", "scale")], feeds)


@pytest.mark.parametrize(
    ("dtype", "zero", "low", "high"),
    [
        (np.uint8, 0, 0, 255),
        (np.uint8, 90, 0, 255),
        (np.int8, -3, -128, 127),
        (np.uint8, None, 0, 255),
    ],
)
@pytest.mark.parametrize("axis", [None, 1])
def test_they_are_those_of_learned_step_sizes(dtype, zero, low, high, axis):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=SHAPE) * 1.2).astype(np.float32)
    r = rng.normal(size=SHAPE).astype(np.float32)
    z = 0 if zero is None else zero
    scale = np.float32(0.01) if axis is None else np.array([0.008, 0.01, 0.02], np.float32)
    given = zero if axis is None or zero is None else [zero] * 3
    dx, ds = gradients(pair(dtype, scale, given, r, axis), {"x": x, "scale": np.asarray(scale)})
    wanted_x, wanted_s = np.zeros(SHAPE), np.zeros(np.shape(scale))
    beyond = 0
    for at in np.ndindex(SHAPE):  # eq. 3 of the paper, as written
        s = float(scale if axis is None else scale[at[1]])
        v = float(x[at]) / s
        slot = () if axis is None else (at[1],)
        if v + z < low or v + z > high:
            beyond += 1
            wanted_s[slot] += r[at] * ((low if v + z < low else high) - z)
        else:
            wanted_x[at] = r[at]
            wanted_s[slot] += r[at] * (np.rint(v) - v)
    assert 0 < beyond < x.size
    np.testing.assert_allclose(dx, wanted_x, rtol=1e-5)
    np.testing.assert_allclose(ds, wanted_s, rtol=1e-3, atol=1e-3)


def test_scales_in_blocks_are_named():
    model = pair(
        np.uint8, np.full((2, 3, 2), 0.1, np.float32), None, np.ones(SHAPE, np.float32), -1
    )
    model.opset_import[0].version = 21
    for node in model.graph.node[:2]:
        node.attribute.append(helper.make_attribute("block_size", 2))
    facts = infer_facts(model, {"x": SHAPE, "scale": ()}, Constants(model))
    found = append_backward(model, facts, "loss", ["x"])
    assert "block" in dict(found.blocked)["y"]
