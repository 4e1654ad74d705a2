"""Every verb takes a path, a ModelProto or an onnx_ir.Model."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest

import onnx_esn
from onnx_esn.errors import ModelError
from onnx_esn.graph.model_file import load_model
from onnx_esn.graph.model_source import plain_source
from tests.passes.tiny import two_convs


def test_a_path_and_a_proto_stay_as_they_are(tmp_path):
    model = two_convs()
    assert plain_source(model) is model
    assert plain_source(tmp_path) is tmp_path
    assert plain_source("model.onnx") == "model.onnx"


@pytest.mark.parametrize("wrong", [None, 5, b"model.onnx", onnx.GraphProto()])
def test_what_is_no_model_is_named(wrong):
    with pytest.raises(ModelError, match=f"a {type(wrong).__name__} is not a model: give a path"):
        onnx_esn.inspect(wrong)


def test_onnx_ir_is_not_imported():
    known = sys.modules.pop("onnx_ir", None)
    try:
        with pytest.raises(ModelError):
            load_model(object())
        assert "onnx_ir" not in sys.modules
    finally:
        if known is not None:
            sys.modules["onnx_ir"] = known


@pytest.fixture
def ir():
    return pytest.importorskip("onnx_ir")


def images():
    return np.random.default_rng(0).normal(size=(12, 3, 6, 6)).astype(np.float32)


def test_verbs_give_the_same_for_both_forms(ir, tmp_path):
    proto = two_convs(ir=10)
    before = proto.SerializeToString()

    def model():
        return ir.from_proto(proto)

    assert onnx_esn.inspect(model()).to_document() == onnx_esn.inspect(proto).to_document()
    data = {"images": {"x": images()}}
    verbs = {
        "prune": lambda m: onnx_esn.prune(m, ratio=0.5),
        "quantize": lambda m: onnx_esn.quantize(m, bits=3),
        "annotate": lambda m: onnx_esn.annotate(m),
        "recalibrate": lambda m: onnx_esn.recalibrate(m, **data, reference=m),
        "compress": lambda m: onnx_esn.compress(m, **data, bits=3, latency=False),
    }
    for name, verb in verbs.items():
        made = verb(model()).model
        assert isinstance(made, onnx.ModelProto), name
        # onnx_ir may lay out the same tensors and attributes in another way.
        onnx.checker.check_model(made, full_check=True)
        assert ops(made) == ops(verb(proto).model), name
        for ours, same in zip(values(made), values(verb(proto).model), strict=True):
            np.testing.assert_array_equal(ours, same, err_msg=name)
    assert proto.SerializeToString() == before


def ops(model):
    return [n.op_type for n in model.graph.node]


def values(model):
    tensors = sorted(model.graph.initializer, key=lambda t: t.name)
    return [onnx.numpy_helper.to_array(t) for t in tensors]


def test_figures_and_files(ir, tmp_path):
    proto = two_convs()
    model = ir.from_proto(proto)
    quantized = onnx_esn.quantize(proto, bits=4).model
    rows = onnx_esn.evaluate([model, quantized], {"x": images()}, reference=model, latency=False)
    assert rows.reference == 0
    assert len(rows.models) == 2
    written = onnx_esn.write_model(quantized, tmp_path / "q.onnx", model)
    assert onnx.load(written) == quantized


def test_weights_in_external_files_are_read(ir, tmp_path):
    proto = two_convs()
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save(
        copy, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    model = ir.load(tmp_path / "m.onnx")
    loaded = load_model(model)
    assert not any(t.external_data for t in loaded.graph.initializer)
    for a, b in zip(values(loaded), values(proto), strict=True):
        np.testing.assert_array_equal(a, b)
    lost = ir.load(tmp_path / "m.onnx")
    (tmp_path / "m.data").unlink()
    with pytest.raises(ModelError, match="external data of"):
        load_model(lost)
