"""Every gradient against central differences of the reference runtime, in float64."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from scipy.special import erf

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.gradients.backward import append_backward
from onnx_esn.graph.gradients.rules import RULES
from onnx_esn.graph.shapes import infer_facts
from tests.runtime import BEFORE_1_24, loads_opset, runs

OPSET = 22


def case(op, *inputs, wanted=(0,), opset=OPSET, **attrs):
    """inputs: shapes of random tensors, or arrays that are constants; None is left out."""
    return op, inputs, wanted, opset, attrs


X = (2, 4, 6, 5)
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
STEPS = ("Ceil", "Floor", "Round", "Sign")


class Erf(OpRun):
    """In the type of its input."""

    op_domain = ""

    def _run(self, x):
        return (erf(x),)


class Gelu(OpRun):
    """In the type of its input."""

    op_domain = ""

    def _run(self, x, approximate="none"):
        if approximate == "none":
            return (x * (1 + erf(x / np.sqrt(2))) / 2,)
        return (x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,)


i64 = lambda *v: np.asarray(v, np.int64)  # noqa: E731
CASES = [
    *(case(op, X) for op in (
        "Abs", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Neg",
        "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "Gelu", "Identity",
        "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax", "Flatten",
        "Softmax", "LogSoftmax", "Transpose", "Dropout",
    )),
    *(case(op, "positive") for op in ("Log", "Sqrt", "Reciprocal")),
    *(case(op, X) for op in ("Ceil", "Floor", "Round", "Sign")),
    case("Gelu", X, approximate="tanh"),
    case("Swish", X, opset=24, alpha=1.5),
    case("Elu", X, alpha=0.4),
    case("LeakyRelu", X, alpha=0.3),
    case("HardSigmoid", X, alpha=0.5, beta=0.3),
    case("Clip", X, np.float64(-0.4), np.float64(0.7)),
    case("Clip", X, np.float64(-0.4)),
    case("Clip", X, None, np.float64(0.3)),
    case("PRelu", X, (4, 1, 1), wanted=(0, 1)),
    case("Pow", "positive", np.float64(1.7)),
    case("Pow", X, np.float64(2.0)),
    *(case(op, X, (4, 1, 1), wanted=(0, 1)) for op in ("Add", "Sub", "Mul", "Min", "Max")),
    *(case(op, (1, 1), X, wanted=(0, 1)) for op in ("Add", "Sub", "Mul")),
    case("Div", X, "positive", wanted=(0, 1)),
    case("Sum", X, (5,), (1, 4, 1, 1), wanted=(0, 1, 2)),
    case("Mean", X, (5,), X, wanted=(0, 1, 2)),
    case("Max", X, X, X, wanted=(0, 2)),
    case("Where", np.arange(30).reshape(6, 5) % 3 == 0, X, (5,), wanted=(1, 2)),
    case("Cast", X, to=TensorProto.DOUBLE),
    # movement
    case("Reshape", X, i64(2, 0, -1)),
    case("Squeeze", (2, 1, 3), i64(1)),
    case("Unsqueeze", (2, 3), i64(0, 3)),
    case("Transpose", X, perm=[2, 0, 3, 1]),
    case("Concat", X, (2, 3, 6, 5), np.ones((2, 1, 6, 5)), wanted=(0, 1), axis=1),
    case("Split", X, i64(1, 3), axis=-3),
    case("Slice", X, i64(1, 0), i64(5, 9), i64(2, 3), i64(2, 1)),
    case("Slice", X, i64(-1), i64(-(2**62)), i64(2), i64(-1)),
    case("Slice", X, i64(4, 3), i64(0, -9), i64(2, 1), i64(-2, -3)),
    case("Slice", X, i64(1), i64(6), i64(2), i64(3)),
    case("Slice", X, i64(0), i64(5), i64(2), i64(2)),
    case("Gather", X, i64(3, 0, 0, -1), axis=1),
    case("Gather", X, np.asarray([[1, 2], [0, 1]], np.int64), axis=3),
    case("Gather", X, np.asarray(2, np.int64), axis=2),
    case("Pad", X, i64(0, 0, 1, 2, 0, 1, 0, 3)),
    case("Pad", X, i64(1, 2), None, i64(3)),
    case("Expand", (4, 1, 5), i64(2, 4, 6, 5)),
    case("Tile", (2, 3), i64(3, 2)),
    case("DepthToSpace", (2, 8, 3, 2), blocksize=2),
    case("DepthToSpace", (2, 8, 3, 2), blocksize=2, mode="CRD"),
    case("SpaceToDepth", (2, 3, 4, 6), blocksize=2),
    *(case("Resize", (1, 2, 4, 3), None, np.asarray([1, 1, 2.0, 3.0], np.float32), mode=mode,
           coordinate_transformation_mode=place)
      for mode in ("nearest", "linear", "cubic")
      for place in ("half_pixel", "asymmetric", "align_corners")),
    case("Resize", (1, 2, 4, 3), None, None, i64(1, 2, 7, 5), mode="linear"),
    case("Resize", (1, 2, 6, 8), None, np.asarray([1, 1, 0.5, 0.5], np.float32), mode="nearest"),
    # layers
    *(case("Conv", (2, 4, 7, 6), (6, 4 // g, 3, 2), (6,), wanted=(0, 1, 2), group=g, **attrs)
      for g in (1, 2)
      for attrs in (
          {}, {"pads": [1, 0, 2, 1]}, {"strides": [2, 3], "pads": [1, 1, 1, 1]},
          {"dilations": [2, 1], "pads": [2, 0, 1, 1]}, {"auto_pad": "SAME_UPPER"},
          {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, {"pads": [4, 3, 4, 3]},
          {"strides": [3, 3], "pads": [0, 0, 0, 0]},
      )),
    case("Conv", (2, 4, 7, 6), (4, 1, 3, 3), wanted=(0, 1), group=4, pads=[1, 1, 1, 1]),
    case("Conv", (2, 4, 7, 6), (4, 1, 3, 3), wanted=(0, 1), group=4, strides=[2, 2]),
    case("Conv", (2, 4, 7, 6), (8, 1, 3, 3), wanted=(0, 1), group=4, strides=[2, 2]),
    case("Conv", (2, 4, 7, 6), (3, 4, 1, 1), wanted=(0, 1)),
    case("Conv", (2, 4, 7, 6), (3, 4, 1, 1), wanted=(0, 1), strides=[2, 2]),
    case("Conv", (2, 4, 9), (6, 2, 3), wanted=(0, 1), group=2, pads=[1, 2]),
    case("Conv", (1, 2, 4, 5, 4), (3, 2, 2, 3, 2), wanted=(0, 1), strides=[1, 2, 1]),
    *(case("ConvTranspose", (2, 4, 4, 3), (4, 3, 3, 2), (3 * g,), wanted=(0, 1, 2), group=g,
           **attrs)
      for g in (1, 2)
      for attrs in (
          {}, {"strides": [2, 3], "pads": [1, 0, 1, 1]},
          {"strides": [2, 2], "output_padding": [1, 1]},
          {"dilations": [2, 1], "pads": [1, 0, 2, 1]},
      )),
    *(case("Gemm", a, b, (5,), wanted=(0, 1, 2), alpha=0.5, beta=1.5, transA=ta, transB=tb)
      for ta, a in ((0, (3, 4)), (1, (4, 3))) for tb, b in ((0, (4, 5)), (1, (5, 4)))),
    case("MatMul", (3, 4), (4, 5), wanted=(0, 1)),
    case("MatMul", (2, 3, 4), (4, 5), wanted=(0, 1)),
    case("MatMul", (2, 3, 4), (2, 4, 5), wanted=(0, 1)),
    case("MatMul", (3, 4), (2, 4, 5), wanted=(0, 1)),
    # reducing
    case("ReduceMean", X, i64(1, -1), keepdims=0),
    case("ReduceSum", X, i64(2), keepdims=1),
    case("ReduceSum", X, noop_with_empty_axes=1),
    case("ReduceMax", X, i64(3), keepdims=0),
    case("Softmax", X, axis=1),
    case("LogSoftmax", X, axis=2),
    *(case("AveragePool", X, kernel_shape=[3, 2], **attrs) for attrs in (
        {}, {"strides": [2, 2]}, {"pads": [1, 1, 1, 0]},
        {"pads": [1, 1, 1, 1], "count_include_pad": 1, "strides": [2, 1]})),
    *(case("MaxPool", X, kernel_shape=[3, 2], **attrs) for attrs in (
        {}, {"strides": [2, 2]}, {"pads": [1, 1, 1, 0], "strides": [2, 2]})),
    case("BatchNormalization", X, *(np.linspace(0.5, 1.5, 4) + k for k in (0, -1, 0.3, 0.2))),
    case("InstanceNormalization", X, np.linspace(0.5, 1.5, 4), np.linspace(-1, 1, 4)),
    case("LayerNormalization", X, np.linspace(0.5, 1.5, 5), np.linspace(-1, 1, 5)),
    case("LayerNormalization", X, np.linspace(0.5, 1.5, 30).reshape(6, 5), axis=2),
]  # fmt: skip


def build(op, inputs, wanted, opset, attrs, dtype, rng):
    """A model with loss = Σ y·r, the values of its inputs, and the names that are wanted."""
    names, feeds, stored = [], {}, []
    for i, given in enumerate(inputs):
        name = "" if given is None else f"in{i}"
        names.append(name)
        if given is None:
            continue
        if isinstance(given, (tuple, str)):
            shape = X if isinstance(given, str) else given
            value = rng.normal(size=shape)
            if isinstance(given, str):
                value = np.abs(value) + 0.5
            feeds[name] = value.astype(dtype)
        else:
            value = np.asarray(given)
            if value.dtype == np.float64:
                value = value.astype(dtype)
            stored.append(numpy_helper.from_array(value, name))
    if attrs.get("to") == TensorProto.DOUBLE and dtype == np.float32:
        attrs = {"to": TensorProto.FLOAT}
    outputs = ["y"]
    if op == "Split":
        outputs.append("y2")
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [helper.make_node(op, names, outputs, **attrs)]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, elem, v.shape) for n, v in feeds.items()],
        [], stored,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    facts = infer_facts(model, {n: v.shape for n, v in feeds.items()})
    weights = np.random.default_rng(5).normal(size=facts.shapes["y"]).astype(dtype)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(weights, "r"))
    graph.node.append(helper.make_node("Mul", ["y", "r"], ["weighted"]))
    graph.node.append(helper.make_node("ReduceSum", ["weighted"], ["loss"], keepdims=0))
    graph.output.append(helper.make_tensor_value_info("loss", elem, []))
    return model, feeds, [names[i] for i in wanted]


def with_gradients(model, feeds, wanted):
    facts = infer_facts(model, {n: v.shape for n, v in feeds.items()}, Constants(model))
    found = append_backward(model, facts, "loss", wanted)
    assert not found.blocked
    for name in wanted:
        elem = model.graph.input[0].type.tensor_type.elem_type
        gradient = found.gradients.get(name)
        if gradient:
            model.graph.output.append(
                helper.make_tensor_value_info(gradient, elem, feeds[name].shape)
            )
    return found.gradients


def central_differences(run, feeds, name, places, h=1e-5):
    value = feeds[name]
    result = []
    for at in places:
        sides = []
        for sign in (1, -1):
            moved = value.copy()
            moved.flat[at] += sign * h
            sides.append(float(run(feeds | {name: moved})))
        result.append((sides[0] - sides[1]) / (2 * h))
    return np.asarray(result)


def slopes_of(op, model, feeds, name, places):
    """In float64 by the reference runtime; a layer is linear, so float32 and a wide step will do.

    The reference computes Erf in float32, and fails in the groups of ConvTranspose.
    """
    if op in LAYERS:
        session = ort.InferenceSession(model.SerializeToString())
        return central_differences(lambda f: session.run(["loss"], f)[0], feeds, name, places, 0.5)
    exact = ReferenceEvaluator(model, new_ops=[Erf, Gelu])
    return central_differences(lambda f: exact.run(["loss"], f)[0], feeds, name, places)


@pytest.mark.parametrize("given", CASES, ids=lambda c: c[0])
def test_gradient_is_the_slope(given):
    op, _, _, opset, _ = given
    if not loads_opset(opset):
        pytest.skip(f"operator set {opset} is too new for this onnx or onnxruntime")
    kind = np.float32 if op in LAYERS else np.float64
    plain, exact, _ = build(*given, kind, np.random.default_rng(3))
    model, feeds, names = build(*given, np.float32, np.random.default_rng(3))
    if BEFORE_1_24 and not runs(model, feeds):
        pytest.skip("this onnxruntime does not run the operator itself")
    gradients = with_gradients(model, feeds, names)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString())
    results = dict(zip([o.name for o in model.graph.output], session.run(None, feeds), strict=True))
    rng = np.random.default_rng(4)
    for name in names:
        places = rng.choice(feeds[name].size, min(feeds[name].size, 24), replace=False)
        slopes = slopes_of(op, plain, exact, name, places)
        found = results[gradients[name]] if name in gradients else np.zeros(feeds[name].shape)
        assert found.shape == feeds[name].shape
        np.testing.assert_allclose(found.reshape(-1)[places], slopes, rtol=1e-4, atol=2e-5)
    assert any(name in gradients for name in names) == (op not in STEPS)


def test_every_rule_is_tested():
    straight_through = {"DequantizeLinear", "QuantizeLinear"}  # test_rules_quantizing.py
    assert set(RULES) == {op for op, *_ in CASES} | straight_through
