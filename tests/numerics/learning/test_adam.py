"""Adam against its published steps, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnx_esn.numerics.learning.adam import Adam, cosine_rate


def test_steps_are_those_of_the_algorithm():
    rng = np.random.default_rng(0)
    x = rng.normal(size=5)
    mine = {"x": x.copy()}
    adam = Adam({"x": np.arange(1.0, 6.0)})
    m, v = np.zeros(5), np.zeros(5)
    for t in range(1, 8):
        g = rng.normal(size=5)
        adam.step(mine, {"x": g}, 0.01)
        for i in range(5):
            m[i] = 0.9 * m[i] + 0.1 * g[i]
            v[i] = 0.999 * v[i] + 0.001 * g[i] ** 2
            m_hat, v_hat = m[i] / (1 - 0.9**t), v[i] / (1 - 0.999**t)
            x[i] -= 0.01 * (i + 1) * m_hat / math.sqrt(v_hat)
    np.testing.assert_allclose(mine["x"], x, rtol=1e-9)


def test_finds_the_least_of_a_bowl():
    x = {"x": np.asarray([3.0, -2.0])}
    adam = Adam({"x": 1.0})
    for step in range(400):
        adam.step(x, {"x": np.asarray([1.0, 100.0]) * x["x"]}, 0.1 * cosine_rate(step, 400))
    assert np.abs(x["x"]).max() < 1e-3


def test_a_gradient_of_nothing_moves_nothing():
    x = {"x": np.ones(2)}
    Adam({"x": 1.0}).step(x, {"x": np.zeros(2)}, 0.1)
    assert (x["x"] == 1).all()


@pytest.mark.parametrize(("step", "rate"), [(0, 1.0), (50, 0.5), (100, 0.0)])
def test_cosine(step, rate):
    assert cosine_rate(step, 100) == pytest.approx(rate)


def test_warm_up_rises_to_the_full_rate():
    rates = [cosine_rate(k, 20, 4) for k in range(5)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
