import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_esn.calibration import Session, input_specs
from onnx_esn.calibration import session as session_module
from onnx_esn.errors import InferenceError, ModelError

from .tiny import add_model, build, conv_model, external, spec, unary_model

X = np.random.default_rng(1).normal(size=(4, 3, 8, 8)).astype(np.float32)


def reference(model, x=X):
    """Relu(Conv) by hand."""
    weight = numpy_helper.to_array(model.graph.initializer[0])
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.maximum(np.einsum("ncyxkl,ockl->noyx", windows, weight), 0)


def test_run_and_specs():
    model = conv_model()
    session = Session(model, threads=1)
    assert session.inputs == input_specs(model) == (spec("N", 3, 8, 8),)
    assert session.outputs == (spec("N", 2, 1, 1, name="y"),)
    result = session.run({"x": X})
    expected = reference(model).mean(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(result["y"], expected, rtol=1e-5)


def test_internal_outputs_of_any_type():
    model = conv_model()
    before = model.SerializeToString()
    session = Session(model, outputs=["r", "index", "y", "w", "x"])
    assert [(out.name, out.dtype) for out in session.outputs] == [
        ("r", np.float32), ("index", np.int64), ("y", np.float32), ("w", np.float32),
        ("x", np.float32),
    ]  # fmt: skip
    result = session.run({"x": X})
    np.testing.assert_allclose(result["r"], reference(model), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(result["index"], result["r"].argmax(1, keepdims=True))
    np.testing.assert_array_equal(result["x"], X)
    assert list(session.run({"x": X}, ["index"])) == ["index"]
    assert model.SerializeToString() == before


def test_an_input_that_is_an_output_is_a_copy():
    """onnxruntime 1.23 gives its memory back, which then belongs to nobody."""
    session = Session(conv_model(), outputs=[conv_model().graph.input[0].name])
    (declared,) = session.inputs
    x = np.random.default_rng(0).normal(size=(2, *declared.shape[1:])).astype(np.float32)
    found = session.run({declared.name: x})[declared.name]
    np.testing.assert_array_equal(found, x)
    assert not np.shares_memory(found, x)


def test_only_what_an_early_tensor_needs_is_loaded():
    model = conv_model()
    model.graph.node[-1].op_type = "NoSuchOperator"
    assert list(Session(model, outputs=["c", "c"]).run({"x": X})) == ["c"]
    with pytest.raises(InferenceError, match=r"cannot load the model 'tiny': .*NoSuchOperator"):
        Session(model)


def test_outputs_that_subgraphs_need():
    def branch(op, *inputs):
        result = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, inputs, ["t"])], op, [], [result])

    nodes = [
        helper.make_node("Relu", ["x"], ["outer"]),
        helper.make_node(
            "If",
            ["yes"],
            ["chosen"],
            then_branch=branch("Mul", "outer", "two"),
            else_branch=branch("Identity", "outer"),
        ),
        helper.make_node("Neg", ["chosen"], ["y"]),
    ]
    model = build(
        nodes,
        [("x", TensorProto.FLOAT, ["N", 2])],
        [("y", TensorProto.FLOAT, ["N", 2])],
        [("two", np.float32([2])), ("yes", np.array(True))],
    )
    result = Session(model, outputs=["chosen"]).run({"x": np.float32([[1, -1]])})
    assert result["chosen"].tolist() == [[2, 0]]


def test_unknown_tensor():
    with pytest.raises(ModelError, match="no tensor named 'nope'"):
        Session(conv_model(), outputs=["nope"])


@pytest.mark.parametrize("outputs", [None, ["c"], ["y"]])
def test_weights_that_are_also_inputs_need_no_feed(outputs):
    model = conv_model(ir_version=3)
    weight = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, weight.dims))
    unused = numpy_helper.from_array(np.ones(2, np.float32), "unused")
    model.graph.initializer.append(unused)
    model.graph.input.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, [2]))
    assert [item.name for item in input_specs(model)] == ["x"]
    session = Session(model, outputs=outputs)
    assert session.inputs == input_specs(model)
    assert len(session.run({"x": X})) == 1


@pytest.mark.parametrize("outputs", [None, ["r"]])
def test_external_data_beside_the_file(tmp_path, outputs):
    path = external(conv_model(), tmp_path / "model.onnx")
    expected = Session(conv_model(), outputs=outputs).run({"x": X})
    for given in (path, str(path)):
        result = Session(given, outputs=outputs).run({"x": X})
        assert result.keys() == expected.keys()
        for name, value in result.items():
            np.testing.assert_array_equal(value, expected[name])
    with pytest.raises(ModelError, match="external file that was not loaded"):
        Session(onnx.load(path, load_external_data=False))


@pytest.mark.parametrize("outputs", [None, ["r"]])
def test_models_too_large_for_a_message_go_through_a_file(tmp_path, monkeypatch, outputs):
    monkeypatch.setattr(session_module, "PROTO_LIMIT", 10)
    monkeypatch.setattr("onnx_esn.temporary.process_folder", lambda: tmp_path)
    model = conv_model()
    before = model.SerializeToString()
    session = Session(model, outputs=outputs)
    [folder] = tmp_path.iterdir()
    result = session.run({"x": X})
    monkeypatch.undo()
    for name, value in Session(model, outputs=outputs).run({"x": X}).items():
        np.testing.assert_array_equal(result[name], value)
    assert model.SerializeToString() == before
    del session
    assert not folder.exists()


def test_files_that_are_no_model(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        Session(tmp_path / "none.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(InferenceError, match=r"cannot load .*junk\.onnx: .*Protobuf"):
        Session(tmp_path / "junk.onnx")
    with pytest.raises(ModelError, match="is not a readable ONNX file"):
        Session(tmp_path / "junk.onnx", outputs=["x"])


def test_errors_are_one_clean_line(capfd):
    session = Session(conv_model())
    with pytest.raises(InferenceError) as raised:
        session.run({"x": X[:, :2]})
    message = str(raised.value)
    assert "x (4, 2, 8, 8)" in message
    assert "\n" not in message
    assert "ONNXRuntimeError" not in message
    with pytest.raises(InferenceError, match="missing from input feed"):
        session.run({})
    broken = unary_model("Reshape")
    broken.graph.node[0].input.append("shape")
    broken.graph.initializer.append(numpy_helper.from_array(np.array([3]), "shape"))
    with pytest.raises(InferenceError) as raised:
        Session(broken).run({"x": np.ones((1, 2), np.float32)})
    assert "cannot be reshaped" in str(raised.value)
    assert ".h:" not in str(raised.value)
    assert capfd.readouterr() == ("", "")  # nor does onnxruntime print it


def test_half_precision_and_unoptimized():
    session = Session(conv_model(elem=TensorProto.FLOAT16), optimize=False)
    assert session.inputs[0].dtype == np.float16
    assert session.run({"x": X.astype(np.float16)})["y"].dtype == np.float16


def test_several_inputs():
    assert [item.name for item in Session(add_model()).inputs] == ["a", "b"]


def test_input_specs_of_odd_models():
    model = conv_model(batch=5)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[1].dim_value = 0
    dims[2].ClearField("dim_value")
    dims[3].dim_value = -1
    assert input_specs(model)[0].shape == (5, None, None, None)
    assert input_specs(model)[0].fixed_batch == 5
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert input_specs(model)[0].shape == ()
    assert input_specs(model)[0].describe_shape() == "of unknown rank"
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(ModelError, match=r"input 'x' .* is not a tensor .* \(sequence_type\)"):
        input_specs(model)


def test_onnxruntime_is_imported_only_when_a_model_is_loaded():
    code = "import sys, onnx_esn.calibration; sys.exit('onnxruntime' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
