"""Hostile models, continued: sparse tensors, inputs and operator sets."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.hostile.models import hostile, saved
from tests.hostile.verbs import SHAPE, sound_model
from tests.net import Net


def _sparse(dims, indices, folder, values=None):
    model = sound_model()
    weight = model.graph.initializer[0]
    held = np.ones(len(indices), np.float32) if values is None else values
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(held, weight.name),
        numpy_helper.from_array(np.array(indices, np.int64), f"{weight.name}_at"),
        dims,
    )
    del model.graph.initializer[0]
    model.graph.sparse_initializer.append(sparse)
    return saved(model, folder)


@hostile()
def sparse_weight(folder):
    return _sparse([8, 3, 3, 3], [0, 5, 100], folder)


@hostile("sparse")
def huge_sparse_weight(folder):
    return _sparse([2**20, 2**20, 3, 3], [0, 5, 100], folder)


@hostile("sparse")
def sparse_beyond_its_end(folder):
    return _sparse([8, 3, 3, 3], [0, 5, 10**6], folder)


@hostile("sparse")
def sparse_before_its_start(folder):
    return _sparse([8, 3, 3, 3], [-7, 5, 100], folder)


@hostile("sparse")
def sparse_with_other_counts(folder):
    return _sparse([8, 3, 3, 3], [0, 5, 100], folder, np.ones(9, np.float32))


# Sizes.


def _input(folder, *shape, batch="N"):
    model = sound_model()
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for d, size in zip(dims, (batch, *shape), strict=True):
        d.Clear()
        if isinstance(size, str):
            d.dim_param = size
        else:
            d.dim_value = size
    del model.graph.value_info[:]
    return saved(model, folder)


@hostile()
def huge_input(folder):
    return _input(folder, 3, 2**20, 2**20)


@hostile()
def input_beyond_all_numbers(folder):
    return _input(folder, 3, 2**62, 2**62)


@hostile()
def huge_batch(folder):
    return _input(folder, 3, 6, 6, batch=2**40)


@hostile()
def empty_input(folder):
    return _input(folder, 3, 0, 6)


@hostile()
def negative_input(folder):
    return _input(folder, 3, -6, 6)


@hostile()
def input_without_shape(folder):
    model = sound_model()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return saved(model, folder)


@hostile()
def input_without_type(folder):
    model = sound_model()
    model.graph.input[0].ClearField("type")
    return saved(model, folder)


@hostile()
def input_of_unknown_type(folder):
    model = sound_model()
    model.graph.input[0].type.tensor_type.elem_type = 99
    return saved(model, folder)


@hostile()
def input_of_text(folder):
    model = sound_model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    return saved(model, folder)


@hostile()
def sequence_for_an_input(folder):
    model = sound_model()
    model.graph.input[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1, 3, 6, 6]))
    )
    return saved(model, folder)


@hostile()
def a_thousand_inputs(folder):
    net = Net(*SHAPE)
    names = [net.input(f"y{i}", "N", 3, 6, 6) for i in range(1000)]
    y = net.conv(net.op("Sum", "x", *names), 3, 8, name="a")
    return saved(net.model(net.head(net.relu(y), 8)), folder)


@hostile()
def a_thousand_axes(folder):
    net = Net()
    net.input("x", *["N"] * 1000)
    return saved(net.model(net.relu("x"), shapes={"relu_0_out": ["N"] * 1000}), folder)


# Operator sets and operators.


def _opsets(folder, *opsets):
    model = sound_model()
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(d, v) for d, v in opsets)
    return saved(model, folder)


@hostile("operator set")
def no_operator_set(folder):
    return _opsets(folder)


@hostile("operator set")
def operator_set_of_another_domain(folder):
    return _opsets(folder, ("elsewhere", 1))


@hostile("operator set")
def operator_set_of_tomorrow(folder):
    return _opsets(folder, ("", 1000))


@hostile("operator set")
def operator_set_zero(folder):
    return _opsets(folder, ("", 0))


@hostile("operator set")
def operator_set_below_zero(folder):
    return _opsets(folder, ("", -17))


@hostile("operator set")
def operator_set_of_old(folder):
    return _opsets(folder, ("", 1))


@hostile("twice")
def operator_sets_at_odds(folder):
    return _opsets(folder, ("", 17), ("ai.onnx", 11))


@hostile()
def format_of_tomorrow(folder):
    model = sound_model()
    model.ir_version = 99
    return saved(model, folder)


@hostile()
def format_of_no_version(folder):
    model = sound_model()
    model.ClearField("ir_version")
    return saved(model, folder)


@hostile()
def operator_nobody_knows(folder):
    model = sound_model()
    next(n for n in model.graph.node if n.op_type == "Relu").op_type = "Mystery"
    return saved(model, folder)


@hostile()
def operator_of_a_domain_nobody_imports(folder):
    model = sound_model()
    next(n for n in model.graph.node if n.op_type == "Relu").domain = "mystery"
    return saved(model, folder)


@hostile()
def operator_of_a_foreign_domain(folder):
    model = sound_model()
    node = next(n for n in model.graph.node if n.op_type == "Relu")
    node.domain, node.op_type = "mystery", "Relu"
    model.opset_import.append(helper.make_opsetid("mystery", 1))
    return saved(model, folder)


@hostile()
def operator_without_a_type(folder):
    model = sound_model()
    next(n for n in model.graph.node if n.op_type == "Relu").ClearField("op_type")
    return saved(model, folder)


@hostile()
def our_own_marks(folder):
    """Operators that this project makes for itself."""
    model = sound_model()
    node = next(n for n in model.graph.node if n.op_type == "Relu")
    node.domain, node.op_type = "onnx_esn.flow", "Exit"
    model.opset_import.append(helper.make_opsetid("onnx_esn.flow", 1))
    return saved(model, folder)


@hostile()
def our_own_metadata(folder):
    """What an annotation or a recalibration would have left, but for nonsense."""
    model = sound_model()
    for key in ("esn.schema", "esn.input_shapes", "esn.total", "onnx_esn.body", "esn.layers"):
        model.metadata_props.add(key=key, value='{"x": [1, "two", null, -3, 1e999]}')
        for node in model.graph.node:
            node.metadata_props.add(key=key, value="]")
    return saved(model, folder)
