from __future__ import annotations

import numpy as np
import pytest

from onnx_esn.numerics import damping
from onnx_esn.numerics.compensation import DAMPING, compensated_codes, inputs
from onnx_esn.numerics.cross_moments import CrossMoments, cross_moments, no_moments, quadratic
from onnx_esn.numerics.damping import choose_damping
from onnx_esn.numerics.midrise import Floats


def layer(
    n: int, d: int = 96, m: int = 24, G: int = 1, seed: int = 0
) -> tuple[tuple[CrossMoments, CrossMoments], Floats, Floats]:
    """Moments of two halves of n samples, weights, and the true moments of the inputs."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(G, d, d)) * np.geomspace(1, 0.1, d)
    W = rng.normal(size=(G, m, d))
    halves = []
    for _ in range(2):
        x = (rng.normal(size=(G, n, d)) @ mix.transpose(0, 2, 1)).astype(np.float32)
        halves.append(cross_moments(x, (x @ W.transpose(0, 2, 1)).astype(np.float32)))
    return (halves[0], halves[1]), W, mix @ mix.transpose(0, 2, 1)


def risk(W: Floats, H: Floats, share: float, bits: int, truth: Floats) -> float:
    codes, step = compensated_codes(W, inputs(H, share), bits)
    return float(quadratic(codes * step[..., None] - W, truth).sum())


@pytest.mark.parametrize("seed", range(3))
def test_few_samples_ask_for_more(seed: int) -> None:
    halves, W, truth = layer(n=20, seed=seed)
    share = choose_damping(halves, W, 1e4, 2)
    assert share > DAMPING
    H = halves[0].merge(halves[1]).H
    assert risk(W, H, share, 2, truth) < 0.9 * risk(W, H, DAMPING, 2, truth)


@pytest.mark.parametrize("G", [1, 3])
def test_many_samples_are_trusted(G: int) -> None:
    halves, W, _ = layer(n=6000, G=G, d=30)
    assert choose_damping(halves, W, 1e4, 2) <= 1e-2


def test_one_half_alone_cannot_judge() -> None:
    halves, W, _ = layer(n=20)
    assert choose_damping((halves[0], no_moments(1, 24, 96)), W, 1e4, 2) == DAMPING


def test_layers_of_many_inputs_have_fewer_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    halves, W, _ = layer(n=20)
    monkeypatch.setattr(damping, "MANY", 50)
    tried: list[float] = []

    def spied(H: Floats, share: float) -> object:
        tried.append(share)
        return inputs(H, share)

    monkeypatch.setattr(damping, "inputs", spied)
    assert choose_damping(halves, W, 1e4, 2) in damping._FEW
    assert tried == list(damping._FEW)
