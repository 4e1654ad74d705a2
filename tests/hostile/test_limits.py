"""The limits one by one: what is just allowed, and what is not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnx_esn
from onnx_esn.errors import ModelError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import EvaluationError, evaluate_node
from onnx_esn.graph.intake import check_intake
from onnx_esn.graph.intake.limits import CALLS, GROWN_VALUES, INPUT_VALUES
from onnx_esn.graph.model_file import load_model
from onnx_esn.report.plain_text import shortened, visible
from tests.hostile.models import HOSTILE
from tests.hostile.models_external import beside_the_model
from tests.hostile.models_nested import _call, _function
from tests.hostile.models_tensors import not_a_number
from tests.hostile.verbs import sound_model


def test_a_sound_model_passes():
    check_intake(sound_model(), "model")


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("ConstantOfShape", [np.array([GROWN_VALUES + 1])]),
        ("Expand", [np.ones(1, np.float32), np.array([GROWN_VALUES, 2])]),
        ("Tile", [np.ones(2, np.float32), np.array([GROWN_VALUES])]),
        ("Range", [np.int64(0), np.int64(2**40), np.int64(1)]),
        ("Add", [np.ones((1 << 14, 1), np.float32), np.ones((1, 1 << 14), np.float32)]),
        ("Mystery", []),
        ("Loop", []),
        ("StringConcat", [np.array(["a"], object), np.array(["b"], object)]),
    ],
)
def test_what_would_grow_is_not_computed(op, inputs):
    node = helper.make_node(op, [f"i{k}" for k in range(len(inputs))], ["o"], "n")
    with pytest.raises(EvaluationError, match=op):
        evaluate_node(node, inputs, 21)


def test_what_is_as_large_as_what_it_is_made_from_is_computed():
    x = np.zeros(100, np.float32)
    node = helper.make_node("Neg", ["x"], ["y"])
    assert evaluate_node(node, [x], 21, most=10)[0].size == 100
    node = helper.make_node("ConstantOfShape", ["x"], ["y"])
    assert evaluate_node(node, [np.array([10])], 21, most=10)[0].size == 10
    with pytest.raises(EvaluationError):
        evaluate_node(node, [np.array([11])], 21, most=10)


def test_many_constants_do_not_pass_together():
    model = sound_model()
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 25]), "size"))
    for i in range(9):
        model.graph.node.append(helper.make_node("ConstantOfShape", ["size"], [f"c{i}"]))
    constants = Constants(model)
    for i in range(8):
        constants.value(f"c{i}", keep=False)
    with pytest.raises(EvaluationError, match="grow to more than"):
        constants.value("c8", keep=False)


def test_long_computations_do_not_pass_together(monkeypatch):
    monkeypatch.setattr("onnx_esn.graph.constants._MOST_MULTIPLIED", 3 * 4 * 5 * 2)
    model = sound_model()
    for name, shape in (("a", (3, 4)), ("b", (4, 5))):
        value = np.ones(shape, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    for i in range(3):
        model.graph.node.append(helper.make_node("MatMul", ["a", "b"], [f"c{i}"]))
    constants = Constants(model)
    for i in range(2):
        assert constants.value(f"c{i}").shape == (3, 5)
    with pytest.raises(EvaluationError, match="more than 120 multiplications"):
        constants.value("c2")


def test_inputs_up_to_the_limit():
    model = sound_model()
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for d, size in zip(dims, (1, 1, 1, INPUT_VALUES), strict=True):
        d.dim_value = size
    check_intake(model, "model")
    dims[0].dim_value = 2
    with pytest.raises(ModelError, match="is the most"):
        check_intake(model, "model")


def test_functions_up_to_the_limit():
    model = sound_model()
    model.opset_import.append(helper.make_opsetid("local", 1))
    calls = [_function(f"f{i}", [_call(f"f{i + 1}")]) for i in range(CALLS - 1)]
    last = _function(f"f{CALLS - 1}", [helper.make_node("Relu", ["u"], ["v"])])
    model.functions.extend([*calls, last])
    check_intake(model, "model")
    model.functions.append(_function("g", [_call("f0")]))
    with pytest.raises(ModelError, match="in a row"):
        check_intake(model, "model")


@pytest.mark.parametrize("outside", [False, True])
def test_weights_beside_the_model_are_read(tmp_path, outside):
    """Also without a length: it is what the sizes take, not the rest of the file."""
    for name in ("beside_the_model_small", "beside_the_model_large"):
        (tmp_path / name).mkdir()
        path = HOSTILE[name].build(tmp_path / name)
        light = onnx.load(path, load_external_data=False)
        for tensor in light.graph.initializer:
            for i in reversed(range(len(tensor.external_data))):
                if tensor.external_data[i].key != "location":
                    del tensor.external_data[i]
        path.write_bytes(light.SerializeToString())
        with (path.parent / "weights.bin").open("ab") as file:
            file.write(bytes(1000))
        onnx_esn.inspect(path)
        loaded = Constants(load_model(path, outside=outside))
        assert np.isfinite(loaded.value("a.weight")).all()
    assert beside_the_model


def test_ranking_stops_where_a_weight_is_no_number(tmp_path):
    path = not_a_number(tmp_path)
    with pytest.raises(ModelError, match="a: filter 0 scores nan by signal-norm"):
        onnx_esn.prune(path, ratio=0.4)


def test_text_for_a_terminal():
    assert visible("Conv 'ä新'\n") == "Conv 'ä新'\n"
    assert visible("a\x1b[2J\u202eb\udcff") == "a\\x1b[2J\\u202eb\\udcff"
    assert shortened("x" * 1500) == "x" * 1500
    assert len(shortened("x" * 10_000)) == 1503
