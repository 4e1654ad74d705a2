"""What is said of each stored weight."""

from __future__ import annotations

import math

import numpy as np
import pytest

import onnx_esn
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.numerics.quantizers import MID_RISE
from onnx_esn.passes.analysis import tensors
from onnx_esn.passes.analysis.tensors import analyse_tensors, difference
from onnx_esn.passes.layers.costs import measured_view
from tests.models import MODELS
from tests.net import Net
from tests.passes.layerwise.samples import with_values


def analysed(model, seed=0):
    view = measured_view(standard_form(model))
    return analyse_tensors(view.layers, view.constants, seed)


def one_layer(W):
    net = Net(W.shape[1], 4, 4)
    y = net.relu(net.conv("x", W.shape[1], W.shape[0], W.shape[2], name="a", bias=False))
    model = net.model(y)
    return with_values(model, lambda name, v: W.astype(v.dtype) if v.shape == W.shape else v)


def snr(W, other):
    return 10 * math.log10(np.square(W).sum() / np.square(W - other).sum())


def test_the_figures_are_those_of_rounding_and_pruning_by_hand():
    W = np.random.default_rng(0).normal(size=(6, 4, 3, 3)).astype(np.float32).astype(np.float64)
    ((found,), skipped) = analysed(one_layer(W))
    assert (found.weights, found.looked_at, skipped) == (216, 216, [])
    rows = W.reshape(6, -1)
    for x in found.snr:
        keep = np.abs(W) >= np.sort(np.abs(W).reshape(-1))[-math.ceil(216 * x.bits / 16)]
        assert x.pruned == pytest.approx(snr(W, W * keep), abs=1e-6)
        step = MID_RISE.optimal_step(rows, x.bits)
        ours = MID_RISE.encode(rows, step, x.bits) * step[:, None]
        assert x.filter_wise == pytest.approx(snr(rows, ours), abs=1e-6)
        half = 2 ** (x.bits - 1)
        by_hand = max(
            snr(W, s * np.clip(np.rint(W / s), -half, half - 1))
            for s in np.geomspace(0.005, 3, 2000)
        )
        assert by_hand - 1e-6 <= x.quantized <= by_hand + 0.1
        assert x.pruned_with_mask < x.pruned
        assert x.margin == pytest.approx(x.quantized - x.pruned)


def test_a_weight_of_several_layers_counts_once():
    found, _ = analysed(MODELS["weight_shared_by_two_layouts"].build())
    assert max(len(x.layers) for x in found) > 1
    names = [name for x in found for name in x.layers]
    assert len(names) == len(set(names))


def test_what_is_quantized_already_is_named():
    model = onnx_esn.quantize(MODELS["chain"].build(), bits=4).model
    found, skipped = analysed(model)
    assert found == []
    assert {s.reason for s in skipped} == {"its weights are quantized already"}


@pytest.mark.parametrize(
    ("value", "reason"), [(0.0, "all zero"), (np.nan, "not finite"), (np.inf, "not finite")]
)
def test_weights_that_say_nothing_are_named(value, reason):
    found, skipped = analysed(one_layer(np.full((4, 3, 3, 3), value)))
    assert found == []
    assert reason in skipped[0].reason


def test_of_large_tensors_a_part_is_drawn(monkeypatch):
    W = np.random.default_rng(1).normal(size=(64, 32, 3, 3))
    model = one_layer(W)
    ((whole,), _) = analysed(model)
    monkeypatch.setattr(tensors, "MOST_WEIGHTS", 4000)
    monkeypatch.setattr(tensors, "_MOST_ON_GRID", 3000)
    ((part,), _) = analysed(model)
    assert part.weights == W.size
    assert 3000 < part.looked_at <= 4000
    for a, b in zip(part.snr, whole.snr, strict=True):
        assert a.quantized == pytest.approx(b.quantized, abs=0.5)
        assert a.filter_wise == pytest.approx(b.filter_wise, abs=0.5)
        assert a.pruned == pytest.approx(b.pruned, abs=0.3)
    assert analysed(model)[0] == [part]
    assert analysed(model, seed=1)[0] != [part]


def test_the_difference_of_two_infinities_is_none():
    assert difference(math.inf, math.inf) == 0.0
    assert difference(math.inf, 3.0) == math.inf
