"""The fit of timings: exact on what it can hold, and never worse than a plain search."""

import itertools

import numpy as np
import pytest

from onnx_esn.numerics.latency_fit import fit_latency

GRID = list(itertools.product((3, 8, 16, 40), (2, 16, 64)))
N_IN, N_OUT = map(np.array, zip(*GRID, strict=True))


@pytest.mark.parametrize(
    "c", [(1e-5, 2e-7, 3e-7, 4e-9), (0, 0, 0, 1e-9), (5e-6, 0, 2e-8, 0), (1e-5, 0, 0, 0)]
)
def test_coefficients_come_back(c):
    times = c[0] + c[1] * N_IN + c[2] * N_OUT + c[3] * N_IN * N_OUT
    found = fit_latency(N_IN, N_OUT, times)
    np.testing.assert_allclose(found.c, c, rtol=1e-9, atol=1e-9 * times.max() / 2560)
    assert found.r2 == pytest.approx(1, abs=1e-12)
    assert found.error < 1e-12
    assert found(5, 7) == pytest.approx(c[0] + 5 * c[1] + 7 * c[2] + 35 * c[3], rel=1e-9)


def test_one_width():
    n = np.array([8, 16, 24, 64])
    found = fit_latency(n, n, 2e-6 + 3e-8 * n, one_width=True)
    np.testing.assert_allclose(found.c, (2e-6, 0, 3e-8, 0), rtol=1e-9)


def test_a_width_that_never_changes_has_no_coefficient():
    n_out = np.array([4, 8, 16])
    found = fit_latency([3, 3, 3], n_out, 1e-6 + 1e-8 * n_out)
    np.testing.assert_allclose(found.c, (1e-6, 0, 1e-8, 0), rtol=1e-9)
    assert fit_latency([3], [5], [2e-6]).c == pytest.approx((2e-6, 0, 0, 0))


def test_no_other_coefficients_are_nearer():
    """The relative error is the least there is: no step from the solution lowers it."""
    rng = np.random.default_rng(0)
    times = (1 + N_IN + 0.1 * N_IN * N_OUT) * rng.uniform(0.7, 1.3, N_IN.size)
    counts = rng.integers(1, 5, N_IN.size)
    found = fit_latency(N_IN, N_OUT, times, counts=counts)
    columns = np.stack([np.ones(N_IN.size), N_IN, N_OUT, N_IN * N_OUT], axis=1)

    def loss(c):
        return float((counts * (columns @ c / times - 1) ** 2).sum())

    c = np.array(found.c)
    assert (c >= 0).all()
    assert 0 < found.r2 < 1
    for i, step in itertools.product(range(4), (1e-3, -1e-3)):
        other = c.copy()
        other[i] = max(0.0, c[i] + step * max(c[i], 1e-2))
        assert loss(other) >= loss(c)


def test_a_count_of_two_is_the_timing_twice():
    times = 1.0 + 0.01 * N_IN * N_OUT + 0.3 * np.sin(N_IN)
    counts = np.where(N_IN == 8, 2, 1)
    twice = np.repeat(np.arange(N_IN.size), counts)
    one = fit_latency(N_IN, N_OUT, times, counts=counts)
    two = fit_latency(N_IN[twice], N_OUT[twice], times[twice])
    np.testing.assert_allclose(one.c, two.c, rtol=1e-6, atol=1e-12)
    assert one.r2 == pytest.approx(two.r2)


@pytest.mark.parametrize("times", [[], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_refuses_what_is_no_time(times):
    with pytest.raises(ValueError, match="above 0"):
        fit_latency([1] * len(times), [1] * len(times), times)
