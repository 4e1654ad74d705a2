import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.midrise import decode, encode, pruned_by_step, top_code
from tests.oracles import numerics as oracle

finite = st.floats(-4, 4, allow_subnormal=False, width=32)


@given(
    arrays(np.float64, (3, 4), elements=finite),
    arrays(np.float64, 3, elements=st.sampled_from([0.0, 0.25, 1.0, 3.0, 9.0])),
    arrays(np.int64, 3, elements=st.integers(0, 8)),
    st.booleans(),
)
def test_encode_equals_the_loop(W, step, bits, rule):
    expected = oracle.encode(W, step, bits, rule)
    np.testing.assert_array_equal(encode(W, step, bits, pruned_rule=rule), expected)


def test_there_is_no_zero_level_and_clipping_is_symmetric():
    W = np.array([[-9.0, -1.0, -0.2, 0.0, 0.2, 1.0, 9.0]])
    codes = encode(W, [1.0], 2)
    np.testing.assert_array_equal(codes, [[-1.5, -0.5, -0.5, 0.5, 0.5, 1.5, 1.5]])
    np.testing.assert_array_equal(decode(codes, [2.0]), 2 * codes)


def test_levels_of_b_bits_are_their_own_codes():
    for b in range(1, 9):
        levels = np.arange(-(2 ** (b - 1)), 2 ** (b - 1)) + 0.5
        W = 0.125 * levels[None]
        codes = encode(W, [0.125], b)
        np.testing.assert_array_equal(codes, levels[None])
        np.testing.assert_array_equal(decode(codes, [0.125]), W)
        assert top_code(b) == levels[-1]


def test_a_filter_strictly_within_half_a_step_is_pruned():
    W = np.array([[0.5, -0.5], [0.5, -0.49], [0.0, 0.0], [0.51, 0.1]])
    np.testing.assert_array_equal(pruned_by_step(W, np.full(4, 1.02)), [True, True, True, False])
    np.testing.assert_array_equal(pruned_by_step(W, np.ones(4)), [False, False, True, False])
    assert not encode(W[:2], [1.02, 1.02], 4).any()
    assert encode(W[:2], [1.02, 1.02], 4, pruned_rule=False).all()
    assert not encode(W[2:3], [1.0], 4, pruned_rule=False).any()


@pytest.mark.parametrize("step", [5e-324, 1e-310, 1e300])
def test_extreme_steps_neither_overflow_nor_warn(step):
    codes = encode(np.array([[1e300, -1e300, 5e-324, 0.0]]), [step], 8, pruned_rule=False)
    assert np.isfinite(codes).all()
    assert (np.abs(codes) <= 127.5).all()
    assert codes[0, 0] == (127.5 if step < 1 else 1.5)


def test_wrong_values_are_refused():
    with pytest.raises(VerificationError, match="weight is not finite"):
        encode(np.array([[np.nan, 1.0]]), [1.0], 4)
    with pytest.raises(VerificationError, match="step is not finite"):
        encode(np.ones((1, 2)), [np.inf], 4)
    with pytest.raises(VerificationError, match="negative"):
        encode(np.ones((1, 2)), [-1.0], 4)
    with pytest.raises(ValueError, match=r"0\.\.8"):
        encode(np.ones((1, 2)), [1.0], 9)


def test_the_input_is_left_alone():
    W = np.linspace(-1, 1, 12).reshape(2, 6)
    before = W.copy()
    encode(W, [0.1, 0.0], [3, 3])
    np.testing.assert_array_equal(W, before)
