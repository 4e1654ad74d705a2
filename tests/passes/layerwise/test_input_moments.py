from __future__ import annotations

import numpy as np

from onnx_esn.numerics.cross_moments import cross_moments
from onnx_esn.passes.layerwise.input_moments import input_moments, shrunk
from onnx_esn.passes.layerwise.observation import observe
from onnx_esn.passes.layerwise.statistics import WalkOptions
from tests.models import MODELS
from tests.oracles.equivalence import run
from tests.passes.layerwise.samples import layer_of, some_images, stored, with_outputs


def test_what_layers_read_and_how_loud_they_are() -> None:
    model = MODELS["grouped_in_two"].build()
    images = some_images(model, 6)
    found = input_moments(model, observe(model, images, ["a", "g"], WalkOptions(batch_size=4)))
    assert found.keys() == {"a", "g"}
    layer = layer_of(model, "g")
    names = [model.graph.node[layer.index].input[0], layer.output]
    x, y = run(with_outputs(model, *names), next(images.batches(6)).feeds)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    for g in range(2):
        part = windows[:, 6 * g : 6 * g + 6].transpose(0, 2, 3, 1, 4, 5)
        for rows, H in (
            (part.reshape(-1, 54), found["g"].H[g]),
            (part[::2].reshape(-1, 54), found["g"].half[g]),
        ):
            share = 54 / (54 + len(rows))
            cov = np.cov(rows.T, bias=True)
            wanted = (1 - share) * cov + share * np.diag(cov.diagonal())
            np.testing.assert_allclose(H, wanted, atol=1e-5)
        np.testing.assert_allclose(found["g"].mean[g], part.reshape(-1, 54).mean(axis=0), atol=1e-5)
    norm = next(n for n in model.graph.node if n.input[0] == layer.output)
    gain = stored(model, norm.input[1]) / np.sqrt(stored(model, norm.input[4]) + 1e-5)
    np.testing.assert_allclose(found["g"].gain.reshape(-1), np.abs(gain), rtol=1e-5)
    W = found["g"].W
    np.testing.assert_array_equal(W.reshape(8, -1), stored(model, "g.weight").reshape(8, -1))
    # No weights at all: all that the filters say is lost, as far as the shrinking lets it be.
    lost = found["g"].errors(np.zeros_like(W)).reshape(-1)
    direct = [gain[m] ** 2 * (w @ found["g"].H[m // 4].astype(float) @ w)
              for m, w in enumerate(W.reshape(8, -1))]  # fmt: skip
    np.testing.assert_allclose(lost, direct, rtol=1e-4)
    np.testing.assert_allclose(found["g"].energy, lost.sum())
    assert found["g"].error(W) == 0
    assert y.shape[1] == 8


def test_few_samples_are_drawn_to_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 4, 30))
    moments = cross_moments(x, x)
    H = shrunk(moments)[0]
    np.testing.assert_allclose(H.diagonal(), moments.H[0].diagonal(), rtol=1e-5)
    assert np.linalg.matrix_rank(H, tol=1e-4) == 30
    np.testing.assert_allclose(H[0, 1], moments.H[0, 0, 1] * 4 / 34, rtol=1e-4)


def test_without_a_norm_the_gain_is_one() -> None:
    model = MODELS["chain"].build()
    found = input_moments(model, observe(model, some_images(model, 1), ["a"], WalkOptions()))
    np.testing.assert_array_equal(found["a"].gain, 1.0)
    np.testing.assert_array_equal(found["a"].half, found["a"].H)  # one image is all there is
