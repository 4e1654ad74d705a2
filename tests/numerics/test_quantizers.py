import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnx_esn.numerics.esn import bits as width
from onnx_esn.numerics.quantizers import MID_RISE, MID_TREAD, QUANTIZERS

both = pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=lambda q: q.name)


def test_the_names():
    assert list(QUANTIZERS) == ["mid-rise", "mid-tread"]
    assert all(name == q.name for name, q in QUANTIZERS.items())


@both
def test_the_top_code_of_b_bits_has_b_bits(quantizer):
    for b in range(quantizer.least_bits, 9):
        assert width(quantizer.top_code(b)) == b
        assert width(quantizer.top_code(b) + 1) > b
    for b in range(quantizer.least_bits):
        assert quantizer.top_code(b) == 0


@both
@given(
    x=arrays(np.float64, (2, 1, 5), elements=st.floats(-300, 300)),
    bits=arrays(np.int64, (3, 1), elements=st.integers(0, 8)),
)
def test_rounding_takes_the_nearest_code_elementwise(quantizer, x, bits):
    top = quantizer.top_code(bits)
    codes = quantizer.round_codes(x, top)
    assert codes.shape == (2, 3, 5)
    assert not np.signbit(codes[codes == 0]).any()
    for index, code in np.ndenumerate(codes):
        limit, value = top[index[1], 0], x[index[0], 0, index[2]]
        levels = np.arange(-limit, limit + 1) if limit else np.zeros(1)
        assert code in levels
        assert abs(value - code) == np.abs(value - levels).min()


@both
@given(
    x=arrays(np.float32, (3, 5), elements=st.floats(width=32, allow_nan=False)),
    bits=arrays(np.int64, (3, 1), elements=st.integers(0, 8)),
)
def test_single_precision_gives_the_same_codes(quantizer, x, bits):
    top = quantizer.top_code(bits)
    codes = quantizer.round_codes(x, top.astype(np.float32))
    assert codes.dtype == np.float32
    np.testing.assert_array_equal(codes, quantizer.round_codes(x.astype(np.float64), top))


@both
@given(
    W=arrays(np.float64, (3, 4), elements=st.floats(0.5, 4) | st.floats(-4, -0.5)),
    step=arrays(np.float64, 3, elements=st.floats(0.01, 1)),
    bits=arrays(np.int64, 3, elements=st.integers(0, 8)),
)
def test_encoding_rounds_what_is_not_pruned(quantizer, W, step, bits):
    expected = quantizer.round_codes(W / step[:, None], quantizer.top_code(bits)[:, None])
    np.testing.assert_array_equal(quantizer.encode(W, step, bits), expected)


def test_a_level_at_zero_costs_more_the_fewer_the_bits():
    W = np.random.default_rng(0).standard_normal((20, 1000))
    _, rise = MID_RISE.step_for_all_bits(W)
    _, tread = MID_TREAD.step_for_all_bits(W)
    ratio = (tread.sum(axis=0) / rise.sum(axis=0))[2:]
    assert (ratio > 1).all()
    assert (np.diff(ratio[:5]) < 0).all()  # from 6 bits on it is all but 1
