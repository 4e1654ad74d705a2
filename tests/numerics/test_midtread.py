import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnx_esn.errors import VerificationError
from onnx_esn.numerics import step_search
from onnx_esn.numerics.midrise import decode
from onnx_esn.numerics.midtread import encode, round_codes, top_code
from onnx_esn.numerics.quantizers import MID_TREAD
from onnx_esn.numerics.step_size import squared_error
from tests.oracles import midtread as oracle

finite = st.floats(-4, 4, allow_subnormal=False, width=32)
DRAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy": lambda rng, shape: rng.standard_t(2.5, shape),
    "sparse": lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.3),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
}


def error_at(W, step, bits):
    return squared_error(W, step, bits, MID_TREAD.levels)


@given(
    arrays(np.float64, (3, 4), elements=finite),
    arrays(np.float64, 3, elements=st.sampled_from([0.0, 0.25, 1.0, 3.0, 9.0])),
    arrays(np.int64, 3, elements=st.integers(0, 8)),
)
def test_encode_equals_the_loop(W, step, bits):
    codes = encode(W, step, bits)
    np.testing.assert_array_equal(codes, oracle.encode(W, step, bits))
    assert not np.signbit(codes[codes == 0]).any()


def test_there_is_a_zero_level_and_clipping_is_symmetric():
    W = np.array([[-9.0, -1.0, -0.5, 0.0, 0.4, 0.5, 1.5, 2.5, 9.0]])
    np.testing.assert_array_equal(encode(W, [1.0], 2), [[-1, -1, 0, 0, 0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(encode(W, [1.0], 3), [[-3, -1, 0, 0, 0, 0, 2, 2, 3]])
    np.testing.assert_array_equal(top_code([0, 1, 2, 3, 8]), [0, 0, 1, 3, 127])


def test_the_float_below_one_half_is_not_rounded_up():
    assert round_codes(np.nextafter(0.5, 0), 3) == 0
    assert round_codes(np.nextafter(0.5, 1), 3) == 1


def test_one_bit_is_no_bits():
    W = np.random.default_rng(0).standard_normal((3, 5))
    assert not encode(W, np.full(3, 0.1), 1).any()
    assert not MID_TREAD.optimal_step(W, 1).any()
    steps, error = MID_TREAD.step_for_all_bits(W)
    assert not steps[:, 1].any()
    np.testing.assert_array_equal(error[:, 1], error[:, 0])


@pytest.mark.parametrize("step", [5e-324, 1e-310, 1e300])
def test_extreme_steps_neither_overflow_nor_warn(step):
    codes = encode(np.array([[1e300, -1e300, 5e-324, 0.0]]), [step], 8)
    top = 127 if step < 1 else 1
    assert codes[0].tolist() == [top, -top, 1 if step == 5e-324 else 0, 0]


def test_wrong_values_are_refused():
    with pytest.raises(VerificationError, match="weight is not finite"):
        encode(np.array([[np.nan, 1.0]]), [1.0], 4)
    with pytest.raises(VerificationError, match="step is not finite"):
        encode(np.ones((1, 2)), [np.inf], 4)
    with pytest.raises(VerificationError, match="negative"):
        encode(np.ones((1, 2)), [-1.0], 4)
    with pytest.raises(ValueError, match=r"0\.\.8"):
        encode(np.ones((1, 2)), [1.0], 9)


@given(
    arrays(np.float64, (1, 5), elements=finite),
    st.floats(0.01, 3),
    st.integers(2, 5),
)
def test_codes_are_the_nearest_levels(W, step, bits):
    least = oracle.nearest_level_error(W[0], step, bits)
    assert error_at(W, np.array([step]), bits)[0] == pytest.approx(least, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("bits", range(2, 9))
def test_the_sweep_beats_brute_force(name, bits):
    rng = np.random.default_rng(bits)
    for K in (1, 3, 9, 27):
        W = DRAWS[name](rng, (2, K)) * 0.03
        reached = error_at(W, MID_TREAD.optimal_step(W, bits), bits)
        for row, error in zip(W, reached, strict=True):
            least = oracle.least_squared_error(row, bits)
            # A sweep over every code is never worse; 1e-14 of ‖W‖² is the rounding of both.
            assert error <= least * (1 + 1e-9) + 1e-14 * (row @ row)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize(("bits", "K"), [(8, 80), (8, 300), (6, 300), (4, 1500), (2, 8500)])
def test_the_window_loses_nothing_to_the_whole_range(name, bits, K, monkeypatch):
    W = DRAWS[name](np.random.default_rng(K), (6, K))
    windowed = error_at(W, MID_TREAD.optimal_step(W, bits), bits)
    monkeypatch.setattr(step_search, "_EXACT_BREAKPOINTS", 1 << 40)
    whole = error_at(W, MID_TREAD.optimal_step(W, bits), bits)
    assert (windowed <= whole * 1.001).all()


def test_a_large_filter_is_near_the_gaussian_optimum():
    # Uniform quantizers for N(0, 1) with 3, 7 and 15 levels, as in Max (1960).
    W = np.random.default_rng(0).standard_normal((4, 40000))
    for bits, step, error in [(2, 1.224, 0.1902), (3, 0.6508, 0.04686), (4, 0.3534, 0.01289)]:
        found = MID_TREAD.optimal_step(W, bits)
        np.testing.assert_allclose(found, step, rtol=0.03)
        np.testing.assert_allclose(error_at(W, found, bits).sum() / W.size, error, rtol=0.03)


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
    steps, error = MID_TREAD.step_for_all_bits(W)
    energy = (W**2).sum(axis=1)
    np.testing.assert_allclose(error[:, 0], energy, rtol=1e-14)
    assert (np.diff(error, axis=1) <= 0).all()
    alive = W.any(axis=1)
    assert ((steps[:, 2:] > 0) == alive[:, None]).all()
    assert (steps <= np.abs(W).max(axis=1)[:, None]).all()
    for b in range(2, 9):
        codes = encode(W, steps[:, b], b)
        assert (codes.any(axis=1) == alive).all()  # no optimal step prunes a filter
        residual = ((W - decode(codes, steps[:, b])) ** 2).sum(axis=1)
        np.testing.assert_allclose(residual, error[:, b], rtol=1e-9, atol=2e-12 * energy.max())


def test_filters_of_zeros_and_empty_arrays():
    assert MID_TREAD.optimal_step(np.zeros((3, 4)), 4).tolist() == [0.0] * 3
    assert MID_TREAD.optimal_step(np.zeros((0, 4)), 3).shape == (0,)
    assert MID_TREAD.optimal_step(np.zeros((2, 0)), 3).tolist() == [0.0] * 2
    tiny = np.array([[5e-324, -5e-324], [1e-300, 2e-310]])
    assert np.isfinite(MID_TREAD.step_for_all_bits(tiny)[0]).all()
