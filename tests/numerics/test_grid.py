import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.numerics.grid import detect_grid
from onnx_esn.numerics.midrise import decode, encode
from onnx_esn.numerics.quantizers import MID_TREAD
from onnx_esn.numerics.step_size import optimal_step
from tests.oracles import midtread
from tests.oracles import numerics as oracle

EPS = float(np.finfo(np.float32).eps)
HALF = float(np.finfo(np.float16).eps)
BFLOAT = 2.0**-7


def as_bfloat16(x):
    """Round float32 to bfloat16, to nearest even."""
    raw = np.asarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    raw = (raw + 0x7FFF + ((raw >> 16) & 1)) & 0xFFFF0000
    return raw.astype(np.uint32).view(np.float32)


def quantized(rng, shape, bits, prune=0.0):
    W = rng.standard_normal(shape) * np.exp(rng.standard_normal((shape[0], 1)))
    W[rng.random(shape[0]) < prune] = 0
    step = optimal_step(W, bits)
    return step, encode(W, step, bits)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 20), st.integers(4, 40))
def test_every_layer_of_the_quantizer_is_recognised(seed, bits, M, K):
    step, codes = quantized(np.random.default_rng(seed), (M, K), bits, prune=0.2)
    found = detect_grid(decode(codes, step).astype(np.float32), EPS)
    if not codes.any():
        assert found is None
        return
    found_step, found_codes, quantizer = found
    assert quantizer == "mid-rise"
    for m in range(M):
        odds = oracle.canonical_odds(codes[m]) if codes[m].any() else [0] * K
        np.testing.assert_array_equal(found_codes[m], np.sign(codes[m]) * np.array(odds) / 2)
    np.testing.assert_allclose(
        found_step * np.abs(found_codes).max(axis=1), step * np.abs(codes).max(axis=1), rtol=2 * EPS
    )


def test_a_single_filter_of_four_weights_is_evidence_enough():
    rng = np.random.default_rng(1)
    for _ in range(500):
        codes = np.sign(rng.standard_normal((1, 4))) * (rng.integers(0, 128, (1, 4)) + 0.5)
        W = decode(codes, [abs(rng.standard_normal())]).astype(np.float32)
        found = detect_grid(W, EPS).codes
        np.testing.assert_array_equal(
            found[0] * 2, np.sign(codes[0]) * oracle.canonical_odds(codes[0])
        )


@pytest.mark.parametrize("shape", [(32, 9), (8, 1), (10, 3), (16, 2), (1, 1), (1, 2), (500, 1)])
def test_random_layers_are_not(shape):
    rng = np.random.default_rng(0)
    for _ in range(200):
        W = rng.standard_normal(shape)
        for stored, eps in (
            (W.astype(np.float32), EPS),
            (W.astype(np.float16), HALF),
            (as_bfloat16(W), BFLOAT),
        ):
            assert detect_grid(stored, eps) is None


def test_a_large_float_layer_is_not():
    W = np.random.default_rng(0).standard_normal((64, 1152)).astype(np.float32)
    assert detect_grid(W, EPS) is None


def test_one_float_filter_among_quantized_ones_spoils_the_layer():
    step, codes = quantized(np.random.default_rng(2), (20, 9), 4)
    W = decode(codes, step)
    W[17] = np.random.default_rng(3).standard_normal(9)
    assert detect_grid(W.astype(np.float32), EPS) is None


def test_zeros_and_nothing_are_not():
    assert detect_grid(np.zeros((4, 9)), EPS) is None
    assert detect_grid(np.zeros((0, 9)), EPS) is None
    assert detect_grid(np.zeros((4, 0)), EPS) is None
    assert detect_grid(np.full((4, 9), np.nan), EPS) is None


def test_codes_beyond_eight_bits_are_not():
    codes = np.arange(40).reshape(4, 10) * 7.0 + 0.5
    assert detect_grid((codes * 0.01)[:3].astype(np.float32), EPS) is None  # one code is 203.5
    assert detect_grid((codes * 0.01)[:1].astype(np.float32), EPS) is not None


@pytest.mark.parametrize("scale", [1.0, 1e-3])  # 1e-3: subnormal in float16
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5])
def test_half_precision_layers_are_recognised(bits, scale):
    step, codes = quantized(np.random.default_rng(bits), (64, 27), bits)
    step *= scale / step.max()
    W = decode(codes, step).astype(np.float16)
    found_step, found, _ = detect_grid(W, HALF)
    peak = np.abs(codes).max(axis=1)
    assert (np.abs(found).max(axis=1) <= peak).all()
    normal = step > 1e-3
    np.testing.assert_array_equal(found[normal], codes[normal])
    np.testing.assert_allclose(found_step[normal], step[normal], rtol=HALF)


def test_bfloat16_at_few_bits_is_recognised_and_never_at_eight():
    step, codes = quantized(np.random.default_rng(0), (64, 27), 3)
    found = detect_grid(as_bfloat16(decode(codes, step)), BFLOAT).codes
    np.testing.assert_array_equal(found, codes)


def test_the_result_has_no_negative_zero():
    W = np.array([[0.1, -0.1, 0.3, 0.1], [-0.0, 0.0, -0.0, 0.0]], np.float32)
    step, codes, _ = detect_grid(W, EPS)
    assert not np.signbit(codes[1]).any()
    assert step[1] == 0
    np.testing.assert_array_equal(codes[0], [0.5, -0.5, 1.5, 0.5])


def quantized_with_zeros(rng, shape, bits, prune=0.0):
    """The same, mid-tread, where at least one code is zero or even after division by the gcd."""
    W = rng.standard_normal(shape) * np.exp(rng.standard_normal((shape[0], 1)))
    W[rng.random(shape[0]) < prune] = 0
    step = MID_TREAD.optimal_step(W, bits)
    return step, MID_TREAD.encode(W, step, bits)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(1, 20), st.integers(4, 40))
def test_every_mid_tread_layer_is_recognised(seed, bits, M, K):
    step, codes = quantized_with_zeros(np.random.default_rng(seed), (M, K), bits, prune=0.2)
    live = codes.any(axis=1)
    expected = np.array([midtread.canonical(row) for row in codes])
    found = detect_grid(decode(codes, step).astype(np.float32), EPS)
    if found is None:
        # A ternary filter says little: a weight equal to another is worth some twenty bits.
        assert (np.count_nonzero(codes, axis=1)[live] - 1).sum() < 2
        return
    if (expected[live] % 2 == 1).all():  # −1 % 2 is 1 too
        assert found.quantizer == "mid-rise"
        np.testing.assert_array_equal(found.codes, expected / 2)
        expected = expected / 2
    else:
        assert found.quantizer == "mid-tread"
        np.testing.assert_array_equal(found.codes, expected)
    np.testing.assert_allclose(
        found.step * np.abs(expected).max(axis=1), step * np.abs(codes).max(axis=1), rtol=2 * EPS
    )


def test_odd_codes_alone_are_mid_rise_at_twice_the_step():
    codes = np.array([[1.0, -3.0, 1.0, 5.0], [-7.0, 1.0, 3.0, 3.0]])
    found = detect_grid(decode(codes, [0.1, 0.3]).astype(np.float32), EPS)
    assert found.quantizer == "mid-rise"
    np.testing.assert_array_equal(found.codes, codes / 2)
    np.testing.assert_allclose(found.step, [0.2, 0.6], rtol=EPS)
    codes[1, 3] = 2.0  # one even code makes the layer mid-tread
    found = detect_grid(decode(codes, [0.1, 0.3]).astype(np.float32), EPS)
    assert found.quantizer == "mid-tread"
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.step, [0.1, 0.3], rtol=EPS)


@pytest.mark.parametrize(("dtype", "eps"), [(np.float32, EPS), (np.float16, HALF)])
@pytest.mark.parametrize("keep", [0.05, 0.3, 0.7])
def test_sparse_floats_are_not(dtype, eps, keep):
    rng = np.random.default_rng(0)
    for shape in ((32, 9), (64, 27), (8, 300), (200, 1)):
        for _ in range(20):
            W = rng.standard_normal(shape) * (rng.random(shape) < keep)
            assert detect_grid(W.astype(dtype), eps) is None


def test_zeros_are_no_evidence():
    # Each filter passes one channel on: a lone magnitude fits every grid.
    assert detect_grid(np.diag(np.geomspace(1, 2, 40)), EPS) is None
    W = np.full((4, 9), 0.1, np.float32)
    W[2, 3] = 0
    found = detect_grid(W, EPS)
    assert found.quantizer == "mid-tread"
    assert set(found.codes.ravel()) == {0.0, 1.0}


def test_mid_tread_codes_beyond_eight_bits_are_not():
    codes = np.array([[1, 2, 0, 126], [128, 1, 3, 0]]).repeat(3, axis=0)
    assert detect_grid((codes * 0.01).astype(np.float32)[:3], EPS).quantizer == "mid-tread"
    assert detect_grid((codes * 0.01).astype(np.float32), EPS) is None


@pytest.mark.parametrize("scale", [1.0, 1e-3])  # 1e-3: subnormal in float16
@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_half_precision_mid_tread_layers_are_recognised(bits, scale):
    step, codes = quantized_with_zeros(np.random.default_rng(bits), (64, 27), bits)
    step *= scale / step.max()
    found = detect_grid(decode(codes, step).astype(np.float16), HALF)
    assert found.quantizer == "mid-tread"
    normal = step > 1e-3
    np.testing.assert_array_equal(found.codes[normal], codes[normal])
    np.testing.assert_allclose(found.step[normal], step[normal], rtol=HALF)


def test_bfloat16_mid_tread_at_few_bits_is_recognised():
    step, codes = quantized_with_zeros(np.random.default_rng(0), (64, 27), 3)
    found = detect_grid(as_bfloat16(decode(codes, step)), BFLOAT)
    assert found.quantizer == "mid-tread"
    np.testing.assert_array_equal(found.codes, codes)


def test_leading_filters_of_zeros_do_not_hide_the_grid():
    step, codes = quantized_with_zeros(np.random.default_rng(1), (40, 9), 4)
    codes[:20] = 0
    found = detect_grid(decode(codes, step).astype(np.float32), EPS)
    np.testing.assert_array_equal(found.codes, codes)
