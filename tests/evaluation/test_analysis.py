"""`analyze`: what it finds in whole models, writes and advises."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_esn
from onnx_esn.errors import ImageSetError, ModelError, OptionError, OutputError
from onnx_esn.evaluation.analysis import ModelAnalysis, analyze
from onnx_esn.evaluation.analysis.advice import (
    layer_advice,
    model_advice,
    tallies,
    winner,
)
from onnx_esn.numerics.pruning_or_quantizing import BITS
from onnx_esn.passes.analysis.channels import ChannelAnalysis, ChannelLoss
from onnx_esn.passes.analysis.tensors import TensorAnalysis, WeightSnr
from tests.models import MODELS
from tests.passes.layerwise.samples import some_images
from tests.passes.quantizing.test_compensation import images_for, network

# Kinds of layers: BatchNormalization, groups, depthwise, transposed, weights on either side, …
KINDS = [
    "chain_with_batchnorm",
    "grouped_in_two",
    "depthwise",
    "gemm_chain",
    "matmul_and_add",
    "matmul_with_the_weight_left",
    "weight_shared_by_two_layouts",
]


@lru_cache
def with_images() -> ModelAnalysis:
    return analyze(network(), images_for(network(), 24), batch_size=16)


def test_it_is_a_verb():
    assert onnx_esn.analyze is analyze
    assert onnx_esn.ModelAnalysis is ModelAnalysis


def test_without_images_it_speaks_of_weights_alone():
    found = analyze(network())
    assert len(found.tensors) == 5
    assert (found.outputs, found.channels, found.model_channels) == ({}, (), None)
    document = found.to_document()
    assert (document["images"], document["samples"], document["channels"]) == (None, None, [])
    assert {x["by"] for x in document["summary"]} == {"weights"}
    assert found.tensors == with_images().tensors


def test_nothing_to_compare_is_all_that_is_said():
    document = analyze(network(), exclude=["*"]).to_document()
    assert document["recommendation"] == ["There is nothing to compare."]


def test_with_images_every_layer_has_its_outputs():
    found = with_images()
    assert set(found.outputs) == {name for x in found.tensors for name in x.layers}
    assert found.skipped == ()
    assert found.samples == 24
    assert found.model_channels is not None
    assert {x.by for x in tallies(found)} == {"weights", "outputs", "blocks"}


def test_the_same_again():
    same = analyze(network(), images_for(network(), 24), batch_size=16)
    assert same.to_document() == with_images().to_document()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("images", [False, True])
def test_kinds_of_layers(name, images):
    model = MODELS[name].build()
    before = model.SerializeToString(deterministic=True)
    found = analyze(model, some_images(model, 12) if images else None)
    assert model.SerializeToString(deterministic=True) == before
    assert found.tensors
    assert bool(found.outputs) == images
    for x in found.outputs.values():
        for snr in x.snr:
            assert snr.quantized_limit is None or snr.quantized <= snr.quantized_limit + 1e-6
            assert snr.pruned_limit is None or snr.pruned <= snr.pruned_limit + 1e-6
    json.dumps(found.to_document(), allow_nan=False)


def test_half_precision():
    model = network(dtype=np.float16)
    found = analyze(model, images_for(model, 16))
    assert len(found.outputs) == 5
    assert found.model_channels is not None


def test_layers_that_cannot_be_followed_are_named():
    name = "weight_shared_by_two_layouts"
    model = MODELS[name].build()
    found = analyze(model, some_images(model, 8))
    named = {s.node for s in found.skipped}
    layers = {layer for x in found.tensors for layer in x.layers}
    assert layers <= set(found.outputs) | named


def test_a_quantized_model_has_nothing_to_compare():
    quantized = onnx_esn.quantize(network(), bits=4).model
    found = analyze(quantized, images_for(network(), 8))
    assert found.tensors == ()
    assert model_advice(found) == ["There is nothing to compare."]
    assert {s.reason for s in found.skipped} == {"its weights are quantized already"}


def test_patterns_choose_layers():
    found = analyze(network(), images_for(network(), 12), only=["a", "b"], exclude=["b"])
    assert [x.name for x in found.tensors] == ["a"]
    assert set(found.outputs) == {"a"}
    assert {s.node for s in found.skipped} >= {"b", "c"}
    with pytest.raises(OptionError, match="matches no layer"):
        analyze(network(), only=["nothing"])


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        analyze(tmp_path / "a.onnx")
    with pytest.raises(OptionError, match="give the images"):
        analyze(network(), recipe="r.toml")
    with pytest.raises(OptionError, match="negative"):
        analyze(network(), seed=-1)
    with pytest.raises(ImageSetError):
        analyze(network(), np.zeros((4, 5, 8, 8), np.float32))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        analyze(network()).write(tmp_path / "file")


def test_the_files(tmp_path):
    found = with_images()
    paths = found.write(tmp_path / "new" / "folder")
    names = ["analysis.json", "weights.csv", "theory.csv", "outputs.csv", "channels.csv"]
    assert [p.name for p in paths] == names
    document = json.loads(paths[0].read_text(encoding="utf-8"))
    assert document == found.to_document()
    tables = {p.name: list(csv.DictReader(p.read_text("utf-8").splitlines())) for p in paths[1:]}
    assert len(tables["weights.csv"]) == len(found.tensors) * len(BITS)
    assert len(tables["outputs.csv"]) == len(found.outputs) * len(BITS)
    assert len(tables["theory.csv"]) == 4 * 7
    groups = [found.model_channels, *found.channels]
    assert len(tables["channels.csv"]) == sum(len(g.losses) for g in groups)
    row = tables["weights.csv"][1]
    assert float(row["quantized"]) == pytest.approx(found.tensors[0].snr[1].quantized)
    row = tables["outputs.csv"][1]
    one = found.outputs[row["layer"]]
    assert float(row["pruned"]) == pytest.approx(one.snr[1].pruned)
    assert float(row["block_pruned_limit"]) == pytest.approx(one.blocks[1].pruned_limit)
    assert {p.name for p in (tmp_path / "new" / "folder").iterdir()} == set(names)
    # Once more, over what is there.
    assert found.write(tmp_path / "new" / "folder") == paths


def test_without_images_no_file_speaks_of_outputs(tmp_path):
    names = [p.name for p in analyze(network()).write(tmp_path)]
    assert names == ["analysis.json", "weights.csv", "theory.csv"]


def test_a_path_is_named_by_its_file(tmp_path):
    path = tmp_path / "small.onnx"
    onnx.save(network(), path)
    assert analyze(path).to_document()["model"] == "small.onnx"
    assert analyze(Path(path)).name == "small.onnx"


def made(*margins: tuple[float, ...]) -> ModelAnalysis:
    """Tensors with these leads of quantization, at 8, 4, 3, 2 bits."""
    tensors = []
    for i, leads in enumerate(margins):
        snr = [WeightSnr(b, 10.0 + m, 10.0, 10.0, 9.0) for b, m in zip(BITS, leads, strict=True)]
        tensors.append(TensorAnalysis((f"l{i}",), f"w{i}", 100, 100, 0.0, tuple(snr)))
    return ModelAnalysis("m", tuple(tensors), {}, (), None, ())


@pytest.mark.parametrize(
    ("leads", "advice"),
    [
        ((9.0, 5.0, 3.0, 1.0), "quantize"),
        ((9.0, 5.0, 0.2, -2.0), "prune at 2 bits"),
        ((9.0, -5.0, -1.0, -2.0), "prune at 2, 3, 4 bits"),
        ((-9.0, -5.0, -1.0, -2.0), "prune"),
        ((0.3, 0.0, -0.2, 0.1), "either"),
        ((math.inf, 5.0, 3.0, 1.0), "quantize"),
    ],
)
def test_advice_for_a_layer(leads, advice):
    assert layer_advice(made(leads), "l0") == advice


def test_half_a_decibel_is_no_lead():
    assert [winner(x) for x in (0.6, 0.5, -0.5, -0.6)] == ["quantize", "equal", "equal", "prune"]


def test_tallies_count():
    found = made((9.0, 5.0, 3.0, 1.0), (9.0, 5.0, -3.0, -1.0), (9.0, 0.0, -1.0, -4.0))
    by = {x.bits: (x.quantize, x.prune, x.median_margin) for x in tallies(found)}
    assert by == {8: (3, 0, 9.0), 4: (2, 0, 5.0), 3: (1, 2, -1.0), 2: (1, 2, -1.0)}
    assert model_advice(found)[0].startswith("Most tensors would rather be pruned at 3, 2 bits")
    alone = made((9.0, 5.0, 3.0, 1.0))
    assert model_advice(alone)[0].startswith("Quantize. With --images")
    # With images, and weights that are computed in the graph: nobody is told to give images.
    assert model_advice(replace(alone, images="x"))[0].startswith("Quantize. Removing whole")


def costed(*losses: tuple[int, float, float | None, float]) -> ModelAnalysis:
    """A model that loses these at so many bits a MAC: by bits, by channels, by both."""
    records = [
        ChannelLoss(b, q, p, None if p is None else 0.5, best, 0.8, 2.5) for b, q, p, best in losses
    ]
    whole = ChannelAnalysis("", 10, ("a",), 1e6, tuple(records))
    return ModelAnalysis("m", made((9.0, 5.0, 3.0, 1.0)).tensors, {}, (), whole, ())


def test_advice_for_a_model():
    assert model_advice(costed((4, 1.0, 9.0, 0.9), (2, 2.0, 9.0, 1.9))) == [
        "In MAC·bit: quantize, down to 2 bits per MAC at least; removing filters as well adds "
        "little."
    ]
    first, second = model_advice(costed((4, 1.0, 9.0, 0.9), (2, 2.0, 9.0, 1.0), (1, 5.0, 4.0, 2.0)))
    assert "quantize alone above 2 bits per MAC" in first
    assert "about 80 % of the channels at 2.5 bits, for 0.50 of the loss" in first
    assert second.startswith("At 1 bit per MAC even removing filters alone")
