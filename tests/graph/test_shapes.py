"""Shapes at concrete sizes: inputs, guesses, folded shape arithmetic, what stays unknown."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_esn.errors import ModelError, OptionError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.inputs import data_inputs, declared_shape, input_sizes
from onnx_esn.graph.shapes import guessed_facts, infer_facts
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import run


def with_input(*shape, name="x"):
    """A model with one input of the given shape; None for one that declares none."""
    info = helper.make_tensor_value_info(
        name, TensorProto.FLOAT, None if shape == (None,) else shape
    )
    node = helper.make_node("Relu", [name], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph([node], "g", [info], [out]))


# Inputs.


@pytest.mark.parametrize(
    ("declared", "options", "sizes"),
    [
        ((1, 3, 8, 8), {}, (1, 3, 8, 8)),
        (("N", 3, 8, 8), {}, (1, 3, 8, 8)),
        (("N", 3, 8, 8), {"batch": 5}, (5, 3, 8, 8)),
        ((2, 3, 8, 8), {"batch": 5}, (2, 3, 8, 8)),
        (("N", 3, "H", "W"), {"spatial": 32}, (1, 3, 32, 32)),
        (("N", 3, "H", "W"), {"shapes": {"x": (4, 3, 5, 6)}}, (4, 3, 5, 6)),
        (("N", 3, "N", 8), {"batch": 7}, (7, 3, 7, 8)),
        ((None,), {"shapes": {"x": (4, 3)}}, (4, 3)),
        ((), {}, ()),
    ],
)
def test_sizes(declared, options, sizes):
    assert input_sizes(with_input(*declared), **options) == {"x": sizes}


@pytest.mark.parametrize(
    ("declared", "options", "error", "message"),
    [
        ((None,), {}, ModelError, r"'x' declares no shape; give it with --input-shape"),
        (
            ("N", 3, "H", 8),
            {},
            OptionError,
            r"'x' has the dynamic shape \[N, 3, H, 8\]; give a size .* for example 1,3,224,8",
        ),
        (
            ("N", 3, 8, 8),
            {"shapes": {"x": (1, 4, 8, 8)}},
            OptionError,
            r"shape \[1, 4, 8, 8\] does not fit input 'x' of shape \[N, 3, 8, 8\]",
        ),
        (
            ("N", 3, 8, 8),
            {"shapes": {"x": (3, 8, 8)}},
            OptionError,
            r"shape \[3, 8, 8\] does not fit",
        ),
        (
            ("N", 3, "H", "W"),
            {"shapes": {"x": (1, 3, 0, 8)}},
            OptionError,
            r"shape \[1, 3, 0, 8\] of input 'x' has an axis below 1",
        ),
        (
            ("N", 3, 8, 8),
            {"shapes": {"image": (1, 3, 8, 8)}},
            OptionError,
            r"no input is called 'image'; the inputs are x",
        ),
    ],
)
def test_sizes_that_do_not_fit(declared, options, error, message):
    with pytest.raises(error, match=message):
        input_sizes(with_input(*declared), **options)


def test_initializers_are_not_fed():
    assert [i.name for i in data_inputs(MODELS["initializers_are_inputs"].build())] == ["x"]


def test_declared_shapes():
    infos = [with_input(*s).graph.input[0] for s in (("N", 3, -1), (None,), ())]
    assert [declared_shape(i) for i in infos] == [("N", 3, None), None, ()]


# Guesses.


def test_the_first_usual_size_that_fits_is_guessed():
    net = Net(3, "H", "W")
    y = net.op("AveragePool", "x", kernel_shape=[8, 8], strides=[8, 8])
    y = net.gemm(net.reshape(y, -1, 3 * 28 * 28), 3 * 28 * 28, 2)
    y = net.op("Add", y, net.op("MatMul", y, net.weight(2, 2, fan_in=2)))
    model = net.model(y)
    facts = guessed_facts(model, Constants(model), batch=2)
    assert facts.sizes["x"] == (2, 3, 224, 224)
    assert facts.shapes[y] == (2, 2)


# Against onnxruntime.

DEPEND_ON_DATA = {"Compress", "If", "NonMaxSuppression", "NonZero", "SplitToSequence", "Unique"}


@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_values_are_those_of_a_run(name):
    model = MODELS[name].build()
    facts = guessed_facts(model, Constants(model), batch=2)
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    nodes = [n for n in model.graph.node if n.op_type != "Constant"]  # they may be sparse
    known = [o for n in nodes for o in n.output if o and o in facts.shapes]
    shown.graph.output.extend(
        helper.make_tensor_value_info(o, facts.types[o], None)
        for o in known
        if o not in {x.name for x in model.graph.output}
    )
    outputs = run(shown, feeds_for(model, facts.sizes))
    for info, value in zip(shown.graph.output, outputs, strict=True):
        if info.name not in facts.shapes:
            continue
        assert facts.shapes[info.name] == value.shape, info.name
        if info.name in facts.values and value.dtype.kind in "iub":
            np.testing.assert_array_equal(facts.values[info.name], value)
    if not {n.op_type for n in model.graph.node} & DEPEND_ON_DATA:
        assert all(n.output[0] in facts.shapes for n in model.graph.node)


def test_what_nobody_knows_stays_unknown():
    model = MODELS["custom_operator"].build()
    del model.graph.value_info[:]
    facts = infer_facts(model, {"x": (2, 3, 6, 6)})
    assert "twist_3_out" not in facts.shapes
    assert "relu_2_out" in facts.shapes


def test_contradictions_are_noted():
    net = Net(3, 6, 6)
    net.op("MatMul", "x", net.weight(5, 2, fan_in=5))
    model = with_input("N", 3, 6, 6)
    model.graph.initializer.extend(net.tensors)
    model.graph.node.extend(net.nodes)
    facts = infer_facts(model, {"x": (1, 3, 6, 6)})
    ((node, reason),) = facts.failures
    assert node == "MatMul 'matmul_0'"
    assert reason


def test_the_default_domain_may_be_written_out():
    model = MODELS["chain"].build()
    model.opset_import[0].domain = "ai.onnx"
    facts = guessed_facts(model, Constants(model), batch=2)
    assert facts.shapes[model.graph.output[0].name] == (2, 3)
