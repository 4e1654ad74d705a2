import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnx_esn.errors import VerificationError
from onnx_esn.numerics import step_search
from onnx_esn.numerics.midrise import decode, encode, pruned_by_step
from onnx_esn.numerics.step_size import (
    MID_RISE,
    MID_TREAD,
    optimal_step,
    squared_error,
    step_for_all_bits,
)
from tests.oracles import numerics as oracle

DRAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "heavy": lambda rng, shape: rng.standard_t(2.5, shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("bits", range(1, 9))
def test_the_sweep_beats_brute_force(name, bits):
    rng = np.random.default_rng(bits)
    for K in (1, 3, 9, 27):
        W = DRAWS[name](rng, (2, K)) * 0.03
        reached = squared_error(W, optimal_step(W, bits), bits)
        for row, error in zip(W, reached, strict=True):
            least = oracle.least_squared_error(row, bits, points=4000)
            # A sweep over every code is never worse; 1e-14 of ‖W‖² is the rounding of both.
            assert error <= least * (1 + 1e-9) + 1e-14 * (row @ row)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize(
    ("bits", "K"), [(8, 130), (8, 300), (7, 300), (6, 550), (4, 1500), (2, 8500)]
)
def test_the_window_loses_nothing_to_the_whole_range(name, bits, K, monkeypatch):
    W = DRAWS[name](np.random.default_rng(K), (6, K))
    windowed = squared_error(W, optimal_step(W, bits), bits)
    monkeypatch.setattr(step_search, "_EXACT_BREAKPOINTS", 1 << 40)
    whole = squared_error(W, optimal_step(W, bits), bits)
    assert (windowed <= whole * 1.001).all()


def test_a_large_filter_is_near_the_gaussian_optimum():
    # Max (1960), table of uniform mid-rise quantizers for N(0, 1).
    W = np.random.default_rng(0).standard_normal((4, 40000))
    for bits, step, error in [(1, 1.596, 0.3634), (2, 0.9957, 0.1188), (3, 0.5860, 0.03744)]:
        found = optimal_step(W, bits)
        np.testing.assert_allclose(found, step, rtol=0.03)
        np.testing.assert_allclose(squared_error(W, found, bits) / W.shape[1], error, rtol=0.03)


def test_one_bit_has_the_closed_form():
    W = np.array([[0.1, 0.1, 0.1], [1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(optimal_step(W, 1), [0.2, 4.0, 0.0], rtol=1e-15)
    np.testing.assert_allclose(squared_error(W, optimal_step(W, 1), 1), [0, 2, 0], atol=1e-30)


@settings(max_examples=200, deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.integers(1, 6)),
        elements=st.floats(-1, 1, width=32),
    ),
    st.integers(-140, 100),
)
def test_properties_for_all_bits(W, exponent):
    W = np.ldexp(W, exponent)
    steps, error = step_for_all_bits(W)
    assert steps.shape == error.shape == (W.shape[0], 9)
    np.testing.assert_allclose(error[:, 0], (W**2).sum(axis=1), rtol=1e-14)
    assert (np.diff(error, axis=1) <= 0).all()
    alive = W.any(axis=1)
    assert ((steps[:, 1:] > 0) == alive[:, None]).all()
    for b in range(1, 9):
        assert not pruned_by_step(W, steps[:, b])[alive].any()
        codes = encode(W, steps[:, b], b)
        assert codes[alive].all()
        left = ((W - decode(codes, steps[:, b])) ** 2).sum(axis=1)
        assert (np.abs(left - error[:, b]) <= 1e-9 * left + 3e-12 * error[:, 0]).all()
        # The step is as good as the one searched for these bits alone.
        alone = squared_error(W, optimal_step(W, b), b)
        assert (error[:, b] <= alone * (1 + 1e-9) + 3e-12 * error[:, 0]).all()


def test_constant_magnitudes_are_met_exactly_with_the_largest_step():
    W = np.array([[0.1, -0.1, 0.1], [0.3, 0.3, -0.3]])
    for b in range(1, 9):
        step = optimal_step(W, b)
        np.testing.assert_allclose(step, [0.2, 0.6], rtol=1e-14)
        np.testing.assert_allclose(np.abs(encode(W, step, b)), 0.5)


@pytest.mark.parametrize("bits", range(1, 9))
def test_quantizing_again_changes_nothing(bits):
    W = np.random.default_rng(bits).standard_normal((16, 64))
    step = optimal_step(W, bits)
    codes = encode(W, step, bits)
    again = optimal_step(decode(codes, step), bits)
    np.testing.assert_allclose(
        decode(encode(decode(codes, step), again, bits), again), decode(codes, step), rtol=1e-12
    )


def test_bits_beyond_those_of_the_codes_gain_nothing():
    W = np.random.default_rng(0).standard_normal((8, 1152))
    step = optimal_step(W, 3)
    steps, error = step_for_all_bits(decode(encode(W, step, 3), step))
    assert (np.diff(error[:, :4], axis=1) < 0).all()
    assert (error[:, 4:] == error[:, 3:4]).all()
    np.testing.assert_allclose(steps[:, 3:], np.repeat(step[:, None], 6, axis=1), rtol=1e-12)


def test_bits_may_differ_between_filters():
    W = np.random.default_rng(3).standard_normal((6, 50))
    bits = np.array([0, 3, 8, 1, 3, 5])
    step = optimal_step(W, bits)
    assert step[0] == 0
    for m in range(1, 6):
        np.testing.assert_array_equal(step[m], optimal_step(W[m : m + 1], int(bits[m]))[0])


def test_a_filter_does_not_depend_on_its_neighbours_or_chunks(monkeypatch):
    W = np.random.default_rng(5).standard_normal((40, 30)) * np.geomspace(1e-6, 1e6, 40)[:, None]
    together = step_for_all_bits(W)
    monkeypatch.setattr(step_search, "_CHUNK", 31)
    np.testing.assert_array_equal(step_for_all_bits(W)[0], together[0])


def test_scaling_by_a_power_of_two_scales_the_step_exactly():
    W = np.random.default_rng(6).standard_normal((5, 40))
    np.testing.assert_array_equal(optimal_step(W * 2.0**-90, 5), optimal_step(W, 5) * 2.0**-90)


def test_subnormal_weights_and_empty_arrays_do_not_warn():
    tiny = np.array([[5e-324, -5e-324], [1e-300, 2e-310]])
    assert np.isfinite(step_for_all_bits(tiny)[0]).all()
    assert optimal_step(np.zeros((0, 4)), 3).shape == (0,)
    assert optimal_step(np.zeros((4, 0)), 3).tolist() == [0.0] * 4


def test_wrong_values_are_refused():
    with pytest.raises(VerificationError, match="not finite"):
        optimal_step(np.array([[np.inf, 1.0]]), 4)
    with pytest.raises(ValueError, match=r"0\.\.8"):
        optimal_step(np.ones((1, 2)), 9)


@pytest.mark.parametrize("bits", [6, 7, 8])
@pytest.mark.parametrize("levels", [MID_RISE, MID_TREAD], ids=["rise", "tread"])
def test_more_bits_are_never_worse_where_few_fit(bits, levels):
    """Weights of five bits behind float16: a dip that lies between two samples."""
    rng = np.random.default_rng(bits)
    W = rng.standard_normal((4, 576))
    step = optimal_step(W, 5, levels)
    W = decode(levels.encode(W, step, 5), step).astype(np.float16).astype(np.float64)
    error = squared_error(W, optimal_step(W, bits, levels), bits, levels)
    fewer = squared_error(W, optimal_step(W, 5, levels), 5, levels)
    assert (error <= fewer * (1 + 1e-9)).all()
    assert (fewer < 1e-5 * (W**2).sum(axis=1)).all()
