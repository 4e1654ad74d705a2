from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from onnx_esn.numerics.cross_moments import cross_moments
from onnx_esn.numerics.quantizers import QUANTIZERS
from onnx_esn.passes.layerwise.solvers import Refit, Round, matched
from onnx_esn.passes.layerwise.statistics import LayerStatistics
from tests.models import MODELS
from tests.passes.layerwise.samples import layer_of

Floats = npt.NDArray[np.float64]
G, M, D, N = 2, 4, 6, 400


def statistics(
    seed: int = 0, noise: float = 0.0, reference: bool = True
) -> tuple[LayerStatistics, Floats, Floats, Floats]:
    """Statistics of a layer whose outputs come from other weights than it has; x, y, and those."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(G, N, D)) @ rng.normal(size=(G, D, D)) + 1.0
    truth = rng.normal(size=(G, M, D))
    y = x @ truth.transpose(0, 2, 1) + noise * rng.normal(size=(G, N, M)) + 3.0
    W = truth + 0.3 * rng.normal(size=truth.shape)
    halves = cross_moments(x[:, ::2], y[:, ::2]), cross_moments(x[:, 1::2], y[:, 1::2])
    layer = layer_of(MODELS["grouped_in_two"].build(), "g")
    variance = y.var(axis=1) if reference else None
    return LayerStatistics(layer, W, halves, variance), x, y, truth


def test_least_squares_finds_the_weights() -> None:
    given, _, _, truth = statistics()
    np.testing.assert_allclose(Refit((1e-9,))(given), truth, atol=2e-3)


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_refitted_outputs_have_the_variance_of_the_reference(noise: float) -> None:
    given, x, y, _ = statistics(noise=noise)
    out = x @ Refit()(given).transpose(0, 2, 1)
    # The shrinkage of the factors leaves a little.
    np.testing.assert_allclose(out.var(axis=1), y.var(axis=1), rtol=1e-2)


def test_without_a_reference_no_factor() -> None:
    given, _, _, _ = statistics(reference=False)
    np.testing.assert_array_equal(matched(given, given.W), np.ones((G, M)))


def test_the_moments_of_both_halves() -> None:
    given, x, y, _ = statistics()
    whole = cross_moments(x, y)
    np.testing.assert_allclose(given.moments.H, whole.H, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(given.moments.C, whole.C, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=QUANTIZERS)
def test_rounding_records_what_it_returns(quantizer) -> None:
    given, x, y, _ = statistics(noise=0.1)
    bits = np.array([3, 3, 0, 2, 4, 3, 2, 3])
    solver = Round({"g": bits}, Refit(), quantizer)
    W = solver(given)
    codes, step = solver.codes("g"), solver.step["g"]
    assert codes.shape == (G * M, D)
    np.testing.assert_array_equal(W.reshape(G * M, D), codes * step[:, None])
    assert (np.abs(codes) <= quantizer.top_code(bits)[:, None]).all()
    live = bits > 0
    assert not codes[~live].any()
    assert (step[live] > 0).all()
    out = (x @ W.transpose(0, 2, 1)).var(axis=1).reshape(-1)
    np.testing.assert_allclose(out[live], y.var(axis=1).reshape(-1)[live], rtol=5e-3)


def test_more_bits_come_closer() -> None:
    given, x, y, _ = statistics(noise=0.0)
    gaps = []
    for b in (2, 3, 4, 6, 8):
        W = Round({"g": np.full(G * M, b)}, Refit((1e-9,)))(given)
        gap = (x @ W.transpose(0, 2, 1)) - y
        gaps.append(float(gap.var(axis=1).sum()))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-3 * gaps[0]
