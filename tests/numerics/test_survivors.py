from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.numerics.compensation import Inputs, compensated_codes, inputs
from onnx_esn.numerics.quantizers import QUANTIZERS, Quantizer
from onnx_esn.numerics.survivors import surviving_codes

Floats = npt.NDArray[np.float64]
BOTH = pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=QUANTIZERS)


def problem(seed: int, G: int, k: int, d: int) -> tuple[Floats, Inputs]:
    """Filters in units of their steps, in the order of their inputs, which are correlated."""
    rng = np.random.default_rng([seed, G, k, d])
    A = rng.normal(size=(G, 2 * d, d)) @ (np.eye(d) + rng.normal(size=(d, d)) / np.sqrt(d))
    return rng.normal(size=(G, k, d)), inputs(A.transpose(0, 2, 1) @ A / d)


def follow(
    V: Floats, x: Inputs, top: npt.ArrayLike, survivors: int, quantizer: Quantizer
) -> Floats:
    top = np.broadcast_to(np.asarray(top, float), V.shape[:2])
    return np.asarray(surviving_codes(V, x.unit, x.weight, top, survivors, quantizer), np.float64)


def error(V: Floats, C: Floats, H: Floats) -> Floats:
    gap = V - C
    return np.asarray(np.einsum("gkd,gde,gke->gk", gap, H, gap))


def paths(v: Floats, unit: Floats, weight: Floats, levels: Floats, survivors: int) -> list[float]:
    """The M-algorithm on one filter, path by path."""
    alive: list[tuple[float, list[float], Floats]] = [(0.0, [], v.astype(np.float64))]
    for i in range(len(v)):
        grown = []
        for cost, codes, left in alive:
            nearest = sorted(levels, key=lambda c: abs(left[i] - c))[:2]
            for c in nearest:
                e = left[i] - c
                rest = left.copy()
                rest[i + 1 :] -= unit[i, i + 1 :] * e
                grown.append((cost + weight[i] * e * e, [*codes, c], rest))
        alive = sorted(grown, key=lambda path: path[0])[:survivors]
    return alive[0][1]


@BOTH
@pytest.mark.parametrize(("d", "survivors"), [(1, 1), (7, 1), (7, 3), (20, 8), (75, 5)])
def test_as_path_by_path(quantizer: Quantizer, d: int, survivors: int) -> None:
    """75 weights cross two edges of the blocks in which products are made."""
    V, x = problem(survivors, 2, 3, d)
    bits = 3
    top = float(quantizer.top_code(bits))
    found = follow(V, x, top, survivors, quantizer)
    levels = np.arange(-top, top + 1)
    for g, k in np.ndindex(2, 3):
        wanted = paths(V[g, k], x.unit[g].astype(float), x.weight[g], levels, survivors)
        np.testing.assert_array_equal(found[g, k], wanted)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), d=st.integers(1, 8))
def test_with_enough_paths_one_bit_is_solved(seed: int, d: int) -> None:
    """At one bit there are two codes: 2^d paths are all of them."""
    quantizer = QUANTIZERS["mid-rise"]
    V, x = problem(seed, 2, 2, d)
    found = error(V, follow(V, x, 0.5, 2**d, quantizer), x.H)
    every = np.array(list(itertools.product((-0.5, 0.5), repeat=d)))
    least = np.stack(
        [error(np.repeat(V[:, [k]], len(every), 1), every[None], x.H).min(1) for k in range(2)], 1
    )
    np.testing.assert_allclose(found, least, rtol=1e-5)


@BOTH
def test_more_paths_leave_less_error(quantizer: Quantizer) -> None:
    V, x = problem(0, 3, 40, 48)
    errors = [error(V, follow(V, x, 1.5, m, quantizer), x.H).mean() for m in (1, 4, 16)]
    assert errors[1] < 0.97 * errors[0]
    assert errors[2] < 0.98 * errors[1]


@BOTH
def test_each_filter_has_its_own_codes(quantizer: Quantizer) -> None:
    """Filters without bits stay zero, and neither filters nor groups know of each other."""
    V, x = problem(1, 3, 5, 12)
    bits = np.arange(15).reshape(3, 5) % 5
    top = quantizer.top_code(bits)
    found = follow(V, x, top, 6, quantizer)
    assert (np.abs(found) <= top[..., None]).all()
    assert not found[top == 0].any()
    for g, k in np.ndindex(3, 5):
        part = Inputs(x.H[[g]], x.unit[[g]], x.weight[[g]], x.order[[g]])
        alone = follow(V[[g]][:, [k]], part, top[g, k], 6, quantizer)
        np.testing.assert_array_equal(alone[0, 0], found[g, k])


def test_arguments_are_left_alone() -> None:
    V, x = problem(2, 1, 4, 40)
    before = [a.tobytes() for a in (V, x.unit, x.weight)]
    follow(V, x, 1.5, 4, QUANTIZERS["mid-rise"])
    assert [a.tobytes() for a in (V, x.unit, x.weight)] == before


@BOTH
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), d=st.integers(1, 40), bits=st.integers(1, 5))
def test_compensation_with_several_paths_is_never_worse(
    quantizer: Quantizer, seed: int, d: int, bits: int
) -> None:
    V, x = problem(seed, 2, 3, d)
    back = np.argsort(x.order, axis=1)[:, None]
    W = np.take_along_axis(V, back, axis=2)
    one, several = (
        compensated_codes(W, x, bits, quantizer=quantizer, survivors=m) for m in (1, 16)
    )
    errors = [
        error(V, np.take_along_axis(c * step[..., None], x.order[:, None], axis=2), x.H)
        for c, step in (one, several)
    ]
    energy = error(V, np.zeros_like(V), x.H)
    assert (errors[1] <= errors[0] + 1e-6 * energy).all()
