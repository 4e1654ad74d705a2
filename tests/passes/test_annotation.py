from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_esn.graph import metadata
from onnx_esn.graph.model_file import load_model
from onnx_esn.passes.annotation import Annotate, strip_annotation
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.passes.quantizing.quantization import Quantize
from tests.passes.tiny import two_convs

ASSETS = Path(__file__).parents[3] / "shared" / "assets"


@pytest.fixture(params=[8, 10], ids=["ir8", "ir10"])
def model(request):
    made = Quantize(target_cost="8%")(two_convs(ir=request.param)).model
    made.metadata_props.add(key="author", value="me")
    return made


def test_inspect_of_the_annotated_model_is_its_annotation(model):
    plain = inspect(model).to_document()
    annotated = Annotate()(model).model
    assert json.loads(metadata.read(annotated)["inspection"]) == plain
    assert inspect(annotated).to_document() == plain


def test_a_second_run_changes_no_byte(model):
    once = Annotate()(model)
    twice = Annotate()(once.model)
    assert once.modified
    assert not twice.modified
    assert twice.model.SerializeToString() == once.model.SerializeToString()


def test_a_second_run_replaces(model):
    annotated = Annotate()(model).model
    for t in annotated.graph.initializer:
        if t.name == "W3":
            t.raw_data = np.ones((4, 8), np.float32).tobytes()
    again = Annotate()(annotated).model
    keys = [p.key for p in again.metadata_props]
    assert len(keys) == len(set(keys))
    assert json.loads(metadata.read(again)["filter_bits"])["Gemm_6"] == [1] * 4
    assert metadata.read(again) != metadata.read(annotated)
    assert ("author", "me") in [(p.key, p.value) for p in again.metadata_props]


def test_nodes_carry_their_own_figures():
    model = Quantize(bits=4)(two_convs(ir=10)).model
    annotated = Annotate()(model).model
    layers = {x.name: x for x in inspect(model).layers}
    for node in annotated.graph.node:
        found = metadata.read(node)
        if node.name not in layers:
            assert not found
            continue
        layer = layers[node.name]
        assert found["bits"] == "4"
        assert int(found["macs"]) == layer.macs
        assert float(found["esn_a"]) == layer.esn_a
        assert float(found["esn_d"]) == layer.esn_d
        assert float(found["esn_prime_d"]) == layer.esn_prime
    onnx.checker.check_model(annotated)


def test_float_layers_and_ranges():
    model = two_convs(ir=10)
    result = Annotate()(Quantize(target_cost="8%")(model).model).model
    bits = json.loads(metadata.read(result)["filter_bits"])["Conv_3"]
    low, high = min(bits), max(bits)
    expected = str(low) if low == high else f"{low}-{high}"
    assert metadata.read(result.graph.node[3])["bits"] == expected
    floats = Annotate()(model).model
    assert metadata.read(floats.graph.node[0])["bits"] == "32"
    assert "esn_a" not in metadata.read(floats.graph.node[0])
    assert "total_esn_a" not in metadata.read(floats)


def test_below_ir_10_only_the_model_is_annotated():
    result = Annotate()(two_convs(ir=9))
    assert result.model.ir_version == 9
    assert not any(node.metadata_props for node in result.model.graph.node)
    assert "inspection" in metadata.read(result.model)
    assert "IR version 9" in result.skipped[0].reason


def test_totals_are_for_people():
    found = metadata.read(Annotate()(two_convs()).model)
    assert found["total_macs"] == "10.4 k MAC"
    assert found["total_bits_per_mac"] == "32 bit"


def test_strip():
    model = two_convs(ir=10)
    annotated = Annotate()(model).model
    assert strip_annotation(annotated)
    assert annotated == model
    assert not strip_annotation(annotated)


@pytest.mark.skipif(not ASSETS.is_dir(), reason="needs the shared development assets")
@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_resnet20_dynamo"])
def test_on_a_real_model(name):
    model = load_model(ASSETS / "models" / f"{name}.onnx")
    quantized = Quantize(bits=4)(model)
    assert quantized.details["cost_after"] == 4 * 40551040
    annotated = Annotate()(quantized.model).model
    document = inspect(annotated).to_document()
    assert json.loads(metadata.read(annotated)["inspection"]) == document
    assert document["totals"]["quantized_layers"] == 20
