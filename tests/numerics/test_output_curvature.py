"""Random directions have the second moment of the divergence that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from onnx_esn.numerics.agreement import divergences
from onnx_esn.numerics.output_curvature import is_quadratic, random_directions

DRAWS = 4000


def kinds():
    rng = np.random.default_rng(1)
    scores = 2.0 * rng.normal(size=(3, 6))
    boxes = rng.normal(size=(3, 4, 9)) * np.array([300.0, 200.0, 1.0, 0.1])[:, None]
    return {
        "scores": scores,
        "scores with places of size one": scores[..., None, None],
        "probabilities": softmax(scores, axis=1),
        "map, classes last": softmax(rng.normal(size=(3, 5, 4)), axis=-1),
        "map, classes first": softmax(rng.normal(size=(3, 4, 5, 5)), axis=1),
        "numbers by channel": boxes,
        "one channel": rng.normal(size=(3, 1)),
        "channels last": rng.normal(size=(3, 5, 5, 2)) * np.array([1.0, 50.0]),
    }


@pytest.mark.parametrize("kind", kinds())
def test_squares_add_up_to_the_divergence(kind):
    ref = kinds()[kind]
    rng = np.random.default_rng(0)
    # Small, in the unit of its channel, and a distribution still.
    change = 1e-3 * ref * rng.normal(size=ref.shape)
    if kind in ("probabilities", "map, classes last", "map, classes first"):
        axis = -1 if kind == "map, classes last" else 1
        moved = softmax(np.log(ref) + 1e-3 * rng.normal(size=ref.shape), axis=axis)
        change = moved - ref
    draws = np.array(
        [
            (random_directions(ref, rng, temperature=1.0) * change).reshape(3, -1).sum(axis=1)
            for _ in range(DRAWS)
        ]
    )
    squares = draws**2
    error = squares.std(axis=0) / np.sqrt(DRAWS)
    expected = divergences({"y": ref}, {"y": ref + change})
    if kind.startswith(("scores", "prob")):
        # The divergence of scores chooses its own temperature: here it is the plain one.
        p, q = (x.reshape(3, 6) for x in (ref, ref + change))
        if kind.startswith("scores"):
            p, q = softmax(p, axis=1), softmax(q, axis=1)
        expected = (p * np.log(p / q)).sum(axis=1)
    assert (np.abs(squares.mean(axis=0) - expected) <= 5 * error + 0.01 * expected).all()


def test_a_rare_class_counts_in_every_draw():
    scores = np.array([[12.0, 0.0, 0.0, 0.0]])
    u = random_directions(scores, np.random.default_rng(0))
    assert (np.abs(u[:, 1:]) > 0).all()


def test_silent_channels_and_zeros_give_finite_directions():
    ref = np.zeros((2, 3, 4, 5))
    ref[:, 0] = 1.0
    for outputs in (ref, np.zeros((2, 3, 4, 5)), np.zeros((2, 1))):
        assert np.isfinite(random_directions(outputs, np.random.default_rng(0))).all()


def test_the_same_seed_gives_the_same_directions():
    ref = kinds()["numbers by channel"]
    one, other = (random_directions(ref, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one, other)


def test_numbers_in_several_channels_are_not_quadratic():
    several = {"numbers by channel", "channels last"}
    assert {kind for kind, ref in kinds().items() if not is_quadratic(ref)} == several
