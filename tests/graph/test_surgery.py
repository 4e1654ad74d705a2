"""The one door to GraphSurgeon gives back what its round trip loses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_esn.errors import OperationError
from onnx_esn.graph.channels.groups import analyse
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.rewrite import surgery
from onnx_esn.graph.rewrite.bias import BiasDelta, add_to_biases
from onnx_esn.graph.rewrite.surgery import edit
from tests.models import MODELS
from tests.net import Net, feeds_for
from tests.oracles.equivalence import relative_difference, run


def edited(model):
    before = model.SerializeToString()
    with edit(model) as session:
        pass
    assert model.SerializeToString() == before
    return session.model


def decorated():
    """A model with something in every corner that a round trip can lose."""
    net = Net(3, 6, 6, ir=10)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.op("Clip", y, "", net.store(np.array(6.0)))
    model = net.model(net.head(y, 8))
    model.model_version, model.domain = 7, "org.example"
    model.producer_version = "1.2"
    for owner in (model, model.graph, model.graph.node[0], model.graph.initializer[0]):
        owner.metadata_props.add(key="k", value="v")
    for owner in (model.graph.node[1], model.graph.initializer[1], model.graph.input[0]):
        owner.doc_string = "a note"
    model.graph.output[0].doc_string = "the scores"
    annotation = model.graph.quantization_annotation.add(tensor_name="a_out")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="t0")
    model.graph.value_info.append(
        helper.make_tensor_value_info("a_out", TensorProto.FLOAT, ["N", 8, 6, 6])
    )
    return model


def test_an_edit_without_changes_loses_nothing_but_value_info():
    model = decorated()
    del model.graph.value_info[:]
    assert edited(model) == model


def test_declared_shapes_are_dropped():
    assert not edited(decorated()).graph.value_info


@pytest.mark.parametrize("name", [n for n in MODELS if n != "sparse_constants"])
def test_every_tiny_graph_comes_back_as_it_was(name):
    model = MODELS[name].build()
    result = edited(model)
    onnx.checker.check_model(result, full_check=True)
    assert list(result.graph.node) == list(model.graph.node)
    for part in ("input", "output"):
        assert list(getattr(result.graph, part)) == list(getattr(model.graph, part))
    read = {name for node in model.graph.node for name in (*node.input, *captured(node))}
    stored = {t.name: t for t in model.graph.initializer}
    assert stored.keys() & read <= {t.name for t in result.graph.initializer} <= stored.keys()
    for tensor in result.graph.initializer:
        old = stored[tensor.name]
        assert (tensor.data_type, tensor.dims) == (old.data_type, old.dims)
        assert numpy_helper.to_array(tensor).tobytes() == numpy_helper.to_array(old).tobytes()
    assert (result.ir_version, result.opset_import) == (model.ir_version, model.opset_import)
    assert result.functions == model.functions


@pytest.mark.xfail(strict=True, reason="GraphSurgeon drops the value of a sparse Constant")
def test_a_sparse_constant_comes_back_as_it_was():
    model = MODELS["sparse_constants"].build()
    assert list(edited(model).graph.node) == list(model.graph.node)


def test_operators_go_between_a_tensor_and_its_readers():
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    model = net.model(net.head(y, 8), y)
    with edit(model) as session:
        one = session.constant("one", np.ones(1, np.float32))
        session.insert_after(y, "Add", [one])
        session.insert_after(y, "Mul", [session.constant("one", np.full(1, 2, np.float32))])
    onnx.checker.check_model(session.model, full_check=True)
    assert session.model.graph.output == model.graph.output
    assert {t.name for t in session.model.graph.initializer} >= {"one", "one_"}
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    np.testing.assert_allclose(
        run(session.model, feeds)[1], (run(model, feeds)[1] + 1) * 2, rtol=1e-6
    )


def test_a_graph_that_graphsurgeon_cannot_carry(monkeypatch):
    def refuse(model):
        raise ValueError("sparse tensors are beyond me")

    monkeypatch.setattr(surgery.gs, "import_onnx", refuse)
    with pytest.raises(OperationError, match="cannot import the model: sparse tensors"):
        edited(MODELS["chain"].build())


def test_sparse_initializers_survive():
    net = Net(3, 6, 6)
    model = net.model(net.head(net.relu(net.conv("x", 3, 8)), 8))
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [3.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [2])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8]))
    assert edited(model).graph.sparse_initializer == model.graph.sparse_initializer


# Biases.


@pytest.mark.parametrize("name", ["chain", "chain_with_batchnorm", "matmul_and_add", "gemm_tn"])
def test_what_is_added_to_a_bias_arrives_at_the_output(name):
    model = MODELS[name].build()
    analysis = analyse(model)
    rng = np.random.default_rng(0)
    feeds = feeds_for(model, analysis.facts.sizes)
    for layer in analysis.layers:
        shown = onnx.ModelProto()
        shown.CopyFrom(model)
        del shown.graph.output[:]
        shown.graph.output.append(
            helper.make_tensor_value_info(layer.output, TensorProto.FLOAT, None)
        )
        values = rng.normal(size=layer.filters)
        delta = BiasDelta(
            values, len(layer.output_shape) - 1 - layer.channel_axis, TensorProto.FLOAT
        )
        changed = add_to_biases(shown, {layer.output: delta})
        expected = run(shown, feeds)[0] + delta.laid()
        assert relative_difference([expected.astype(np.float32)], run(changed, feeds)) < 1e-6
