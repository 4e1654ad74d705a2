"""What a layer's outputs lose, against brute force and against the bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.numerics.compensation import compensated_codes
from onnx_esn.numerics.midrise import top_code
from onnx_esn.numerics.pruning_or_quantizing import BITS
from onnx_esn.passes.analysis import blocks, outputs
from onnx_esn.passes.analysis.blocks import BlockSnr, Filter, analyse_blocks
from onnx_esn.passes.analysis.outputs import analyse_outputs
from onnx_esn.passes.layerwise.input_moments import InputMoments
from tests.numerics.pruning_or_quantizing.problems import (
    every_code_error,
    every_mask_error,
    moments,
)


def layer(seed, G=1, m=4, d=12, gain=True):
    rng = np.random.default_rng(seed)
    H = np.stack([moments(rng, d) for _ in range(G)]).astype(np.float32)
    W = rng.normal(size=(G, m, d))
    factor = np.exp(rng.normal(size=(G, m))) if gain else np.ones((G, m))
    return InputMoments(H, H, H, np.zeros((G, d)), W, factor)


def analysed(m, seed=0):
    return analyse_outputs("a", m, np.random.default_rng(seed))


def db(energy, error):
    return 10 * math.log10(energy / error)


@pytest.mark.parametrize("shape", [(1, 4, 12), (3, 2, 9), (5, 1, 9), (1, 6, 40)])
def test_all_filters_are_rounded_as_the_layer_is(shape):
    m = layer(sum(shape), *shape)
    found = analysed(m)
    assert found.looked_at == found.filters == shape[0] * shape[1]
    for x in found.snr:
        codes, step = compensated_codes(m.W, m.H, x.bits)
        assert x.quantized == pytest.approx(
            db(m.energy, m.error(codes * step[..., None])), abs=0.05
        )


def test_the_mask_lies_anywhere_in_the_filters():
    m = layer(3, m=1, d=8)
    found = analysed(m)
    H = m.H[0].astype(np.float64)
    for x in found.snr:
        kept = math.ceil(8 * x.bits / 16)
        best = db(m.energy, m.gain[0, 0] ** 2 * every_mask_error(H, m.W[0, 0], kept))
        assert x.pruned <= best + 1e-6
        assert x.pruned >= best - 3
    loud = InputMoments(
        m.H, m.H, m.H, m.mean, np.concatenate([m.W, 1e-4 * m.W], 1), np.ones((1, 2))
    )
    # Half of all weights: those of the loud filter, and nearly nothing is lost.
    assert analysed(loud).snr[0].pruned > 70


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(1, 3, 6), (2, 2, 10), (1, 2, 33)]))
def test_nothing_found_beats_its_limit(seed, shape):
    found = analysed(layer(seed, *shape), seed)
    for x in found.snr:
        assert x.quantized <= x.quantized_limit + 1e-6
        assert x.pruned <= x.pruned_limit + 1e-6
        assert x.masking in ("magnitude", "greedy")
    for block in found.blocks:
        assert block.quantized <= block.quantized_limit + 1e-9
        assert block.pruned <= block.pruned_limit + 1e-9
        assert block.inputs == min(16, shape[2])


@pytest.mark.parametrize("bits", BITS)
def test_a_block_is_the_best_of_all_masks_and_near_the_best_codes(bits):
    rng = np.random.default_rng(bits)
    n = 4 if bits == 3 else 6
    H, w = moments(rng, n, 0.4), rng.normal(size=n)
    step = 5.0 / 2**bits
    steps = {b: np.array([step]) for b in BITS}
    found = {b.bits: b for b in analyse_blocks([Filter(H, w, 2.0)], steps, rng)}[bits]
    assert (found.blocks, found.inputs, found.solved) == (1, n, 1)
    energy = w @ H @ w
    assert found.kept == math.ceil(n * bits / 16)
    assert found.pruned == pytest.approx(db(energy, every_mask_error(H, w, found.kept)), abs=0.01)
    assert found.pruned_limit == found.pruned
    if bits <= 3:
        best = step**2 * every_code_error(H, w / step, float(top_code(bits)))
        assert found.quantized <= db(energy, best) + 0.01
        assert found.quantized_limit >= db(energy, best) - 0.01


def test_blocks_whose_search_ends_early_say_so(monkeypatch):
    monkeypatch.setattr(blocks, "best_mask", lambda P, w, k: _best_mask(P, w, k, most_nodes=0))
    m = layer(0, m=2, d=32)
    for block in analysed(m).blocks:
        assert block.solved < block.blocks
        assert block.pruned < block.pruned_limit


def _best_mask(*args, **options):
    from onnx_esn.numerics.pruning_or_quantizing.mask_search import best_mask

    return best_mask(*args, **options)


def test_who_wins_a_block_is_proven_or_open():
    def winner(q, q_limit, p, p_limit):
        return BlockSnr(4, 1, 16, 4, q, q_limit, p, p_limit, 1).winner

    assert winner(20.0, 22.0, 10.0, 11.0) == "quantize"
    assert winner(10.0, 12.0, 13.0, 13.0) == "prune"
    assert winner(10.0, 14.0, 9.0, 13.0) == "open"


def test_dead_inputs_and_dead_filters():
    m = layer(1, m=3, d=20)
    H = m.H.copy()
    H[:, 5:15] = 0
    H[:, :, 5:15] = 0
    W = m.W.copy()
    W[0, 1] = 0
    found = analysed(InputMoments(H, H, H, m.mean, W, m.gain))
    assert found.looked_at == 2
    assert all(math.isfinite(x.quantized) for x in found.snr)
    # As many inputs are dead as half of them: nothing is lost by pruning those.
    assert found.snr[0].pruned == math.inf or found.snr[0].pruned > 60
    assert analysed(InputMoments(0 * H, 0 * H, 0 * H, m.mean, W, m.gain)) is None
    assert analysed(InputMoments(H, H, H, m.mean, 0 * W, m.gain)) is None


def test_of_wide_layers_a_few_filters_are_drawn(monkeypatch):
    monkeypatch.setattr(outputs, "MOST_FILTERS", 5)
    monkeypatch.setattr(outputs, "MOST_GREEDY", 8)
    monkeypatch.setattr(outputs, "MOST_SPECTRAL", 8)
    m = layer(2, m=30, d=10)
    found = analysed(m)
    assert (found.filters, found.looked_at) == (30, 5)
    assert {x.masking for x in found.snr} == {"magnitude"}
    assert {x.quantized_limit for x in found.snr} == {None}
    assert analysed(m) == found
    assert analysed(m, seed=1) != found


def test_a_gain_weighs_filters_but_changes_no_single_one():
    m = layer(4, m=1)
    louder = InputMoments(m.H, m.H, m.H, m.mean, m.W, 7 * m.gain)
    for a, b in zip(analysed(m).snr, analysed(louder).snr, strict=True):
        assert a.quantized == pytest.approx(b.quantized)
        assert a.pruned == pytest.approx(b.pruned)
