"""Channels against bits: the costs are those of models that were really cut."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from onnx_esn.numerics.midrise import MAX_BITS
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.passes.allocation.joint import decide
from onnx_esn.passes.allocation.measuring import measure_losses
from onnx_esn.passes.allocation.removal import remove_classes
from onnx_esn.passes.analysis import whole_model
from onnx_esn.passes.analysis.channels import BITS_PER_MAC, analyse_channels
from onnx_esn.passes.analysis.whole_model import analyse_model
from onnx_esn.passes.layers.costs import measured_view
from onnx_esn.passes.layerwise.statistics import WalkOptions
from tests.passes.quantizing.test_compensation import images_for, network


@lru_cache
def losses():
    model = network()
    images = images_for(model, 30)
    return measure_losses(model, images, passes=2, options=WalkOptions(batch_size=16))


def cost_of(model, names):
    return MAX_BITS * sum(x.macs for x in measured_view(model).layers if x.name in names)


def test_every_group_with_a_curve_is_compared():
    found, skipped = analyse_channels(losses())
    assert skipped == []
    assert len(found) == len(losses().curves) > 1
    for group in found:
        assert [x.bits for x in group.losses] == list(BITS_PER_MAC)


def test_costs_are_those_of_models_that_were_cut():
    found, _ = analyse_channels(losses())
    curves = {losses().analysis.groups[c.group].name: c.curve for c in losses().curves}
    cut = 0
    for group in found:
        whole = cost_of(losses().analysis.model, group.layers)
        assert group.cost == whole
        order = curves[group.group].order
        for x in group.losses:
            budget = whole * x.bits / MAX_BITS
            if x.pruned is None:
                continue
            gone = round((1 - x.pruned_kept) * len(order))
            assert _left(order[:gone], group.layers) <= budget
            assert _left(order[: gone - 1], group.layers) > budget
            best = round((1 - x.best_kept) * len(order))
            assert _left(order[:best], group.layers) * x.best_bits / MAX_BITS <= budget * (1 + 1e-9)
            cut += 1
    assert cut > 3


def _left(gone, names):
    result, _ = remove_classes(losses().analysis, np.asarray(gone), losses().moments)
    return cost_of(result.model, names)


def test_the_best_of_both_is_no_worse_than_either():
    found, _ = analyse_channels(losses())
    for group in found:
        for x in group.losses:
            assert x.best <= x.quantized
            assert x.pruned is None or x.best <= x.pruned
            assert x.winner == (
                "prune" if x.pruned is not None and x.pruned < x.quantized else "quantize"
            )
        bits = [x.quantized for x in group.losses]
        assert bits == sorted(bits)


def test_bits_lose_what_their_layers_lose():
    group = analyse_channels(losses())[0][0]
    for x in group.losses:
        expected = sum(losses().bits[name][:, x.bits].sum() for name in group.layers)
        assert x.quantized == pytest.approx(expected)


def test_the_whole_model_is_what_the_allocation_decides():
    found = analyse_model(losses())
    macs = sum(x.macs for x in losses().view.layers)
    assert found.cost == MAX_BITS * macs
    for x in found.losses:
        budget = x.bits * macs
        assert x.quantized == pytest.approx(decide(losses(), budget, prune_scale=np.inf).loss)
        best = decide(losses(), budget)
        if x.pruned is not None:
            cut = decide(losses(), budget, bits=MAX_BITS).loss
            rounding = sum(loss[:, MAX_BITS].sum() for loss in losses().bits.values())
            assert cut < x.pruned <= cut + rounding
            assert x.best <= x.pruned
        assert x.best == pytest.approx(min(best.loss, x.quantized))
        result, _ = remove_classes(losses().analysis, best.gone, losses().moments)
        if best.loss < x.quantized:
            left = sum(y.macs for y in measured_view(result.model).layers)
            assert x.best_bits == pytest.approx(best.cost / left, rel=0.02)


def test_layers_without_moments_count_by_their_weights_once(monkeypatch):
    """A layer of 50 million weights took 25 s for each of twelve decisions."""
    known = replace(losses(), bits={k: v for k, v in losses().bits.items() if k != "b"})
    called = []
    plain = Quantizer.step_for_all_bits
    monkeypatch.setattr(
        Quantizer, "step_for_all_bits", lambda self, W: called.append(W.shape) or plain(self, W)
    )
    whole = analyse_model(known)
    assert called == [(8, 72)]
    assert len(whole.losses) > 1
    monkeypatch.setattr(whole_model, "_PLAIN", 200)
    jobs = {x.name: job for job in known.jobs for x in job.layers}
    (part,) = whole_model._plain_losses(jobs, known).values()
    assert called[-1] == (8, 24)
    rows = jobs["b"].weight.W
    exact = plain(MID_RISE, rows)[1] / np.square(rows).sum()
    np.testing.assert_allclose(part[:, 0].sum(), 1.0)
    np.testing.assert_allclose(part[:, 1:4].sum(axis=0), exact[:, 1:4].sum(axis=0), rtol=0.3)


def test_a_group_whose_layers_cannot_be_quantized_is_named():
    model = network()
    images = images_for(model, 12)
    known = measure_losses(model, images, passes=0, quantize=True, exclude=("c",))
    found, skipped = analyse_channels(known)
    assert all("c" not in group.layers for group in found)
    assert all("the loss of fewer bits is not known of" in s.reason for s in skipped)
