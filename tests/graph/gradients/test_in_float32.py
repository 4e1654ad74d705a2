"""Models of other floats as float32: the same results, whatever they are made of."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnx_esn.calibration import Session
from onnx_esn.graph.gradients.in_float32 import in_float32
from onnx_esn.graph.intake.walk import all_tensors
from tests.models import MODELS
from tests.net import Net

OTHERS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def kinds(model: onnx.ModelProto) -> set[int]:
    found = {tensor.data_type for tensor in all_tensors(model)}
    return found | {x.type.tensor_type.elem_type for x in (*model.graph.input, *model.graph.output)}


def mixed(kind: type) -> onnx.ModelProto:
    """Constants as nodes, casts both ways, a body, types as attributes."""
    net = Net(3, 8, 8, dtype=kind)
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    x = net.relu(net.conv("x", 3, 4))
    half = helper.make_tensor("half", elem, [1], [0.5])
    x = net.op("Add", x, net.op("Constant", value=half))
    x = net.op("Cast", net.op("Cast", x, to=TensorProto.FLOAT), to=elem)
    number = helper.make_tensor("number", elem, [1], [1.5])
    x = net.op("Mul", x, net.reshape(net.op("ConstantOfShape", net.ints(4), value=number), 4, 1, 1))
    eye = net.op("EyeLike", net.op("ConstantOfShape", net.ints(8, 8), value=number), dtype=elem)
    x = net.op("MatMul", x, eye)
    bodies = {}
    for name, value in (("then_branch", 2.0), ("else_branch", 3.0)):
        node = helper.make_node(
            "Constant", [], [name], value=helper.make_tensor("c", elem, [], [value])
        )
        out = helper.make_tensor_value_info(name, elem, [])
        bodies[name] = helper.make_graph([node], name, [], [out])
    x = net.op("Mul", x, net.op("If", net.store(np.array(True)), **bodies))
    return net.model(net.head(x, 4))


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_the_same_in_float32(kind: type):
    model = mixed(kind)
    copy = in_float32(model)
    onnx.checker.check_model(copy, full_check=True)
    assert not kinds(copy) & set(OTHERS)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x.astype(kind)})
    (found,) = Session(copy).run({"x": x.astype(np.float32)}).values()
    assert found.dtype == np.float32
    assert found == pytest.approx(expected.astype(np.float32), rel=1e-2, abs=1e-2)


def test_float32_is_left_alone():
    model = mixed(np.float32)
    assert in_float32(model) is model


KINDS = ("half_precision", "double_precision", "bfloat")
NAMES = [name for name in MODELS if name.startswith(KINDS)]


@pytest.mark.parametrize("name", NAMES)
def test_test_models(name: str):
    model = MODELS[name].build()
    before = model.SerializeToString()
    assert kinds(model) & set(OTHERS)
    copy = in_float32(model)
    onnx.checker.check_model(copy, full_check=True)
    assert not kinds(copy) & set(OTHERS)
    assert model.SerializeToString() == before
    Session(copy)
