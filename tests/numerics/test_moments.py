import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.errors import VerificationError
from onnx_esn.numerics import moments
from onnx_esn.numerics.moments import Moments, channel_moments
from tests.oracles import numerics as oracle


def same(a, b, rtol=1e-9):
    assert a.count == b.count
    np.testing.assert_allclose(a.mean, b.mean, rtol=rtol, atol=1e-12)
    np.testing.assert_allclose(a.m2, b.m2, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 3), (4, 3, 5), (4, 3, 5, 6), (2, 3, 2, 3, 4), (1, 3, 1, 1)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_equal_exact_fractions(shape, dtype):
    x = (np.random.default_rng(0).standard_normal(shape) * 3 + 1).astype(dtype)
    found = channel_moments(x)
    assert found.count == x.size // 3
    for c in range(3):
        mean, variance = oracle.exact_moments(x[:, c].ravel())
        assert found.mean[c] == pytest.approx(mean, rel=1e-13)
        assert found.variance[c] == pytest.approx(variance, rel=1e-12, abs=1e-25)
        assert found.std[c] == pytest.approx(variance**0.5, rel=1e-12, abs=1e-12)


def test_a_large_mean_does_not_drown_the_variance():
    x = (1000 + 1e-2 * np.random.default_rng(0).standard_normal((8, 2, 40, 40))).astype(np.float32)
    found = channel_moments(x)
    for c in range(2):
        _, variance = oracle.exact_moments(x[:, c].ravel())
        assert found.variance[c] == pytest.approx(variance, rel=1e-10)
        assert variance == pytest.approx(1e-4, rel=0.05)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 20), max_size=5), st.floats(0, 1e3))
def test_any_split_into_batches_gives_the_same(seed, cuts, offset):
    x = np.random.default_rng(seed).standard_normal((20, 3, 4, 4)) + offset
    parts = [channel_moments(part) for part in np.split(x, sorted(cuts))]
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    same(total, channel_moments(x))


@pytest.mark.parametrize("chunk", [1, 5, 37, 200, 10**6])
def test_blocks_do_not_show(chunk, monkeypatch):
    x = np.random.default_rng(0).standard_normal((6, 5, 4, 3)).astype(np.float32)
    whole = channel_moments(x)
    monkeypatch.setattr(moments, "_CHUNK", chunk)
    same(channel_moments(x), whole, rtol=1e-12)


def test_the_variance_of_batch_means_is_kept():
    a, b = channel_moments(np.zeros((5, 1))), channel_moments(np.full((5, 1), 2.0))
    assert a.variance[0] == b.variance[0] == 0
    assert a.merge(b).variance[0] == 1.0


def test_any_axis_and_memory_order():
    x = np.random.default_rng(0).standard_normal((4, 5, 6, 3))
    same(channel_moments(x, axis=-1), channel_moments(np.moveaxis(x, -1, 1).copy()))
    same(channel_moments(x, axis=0), channel_moments(np.moveaxis(x, 0, 1).copy()))
    same(channel_moments(x[::2, ::-1]), channel_moments(x[::2, ::-1].copy()))
    assert channel_moments(np.arange(3.0), axis=0).mean.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="axis 4"):
        channel_moments(x, axis=4)


def test_nothing_counted_is_neutral():
    empty = channel_moments(np.zeros((0, 3, 4)))
    assert empty.count == 0
    assert empty.variance.tolist() == [0, 0, 0]
    some = channel_moments(np.random.default_rng(0).standard_normal((4, 3, 4)))
    same(empty.merge(some), some)
    same(some.merge(empty), some)
    same(empty.merge(empty), empty)
    assert channel_moments(np.zeros((4, 3, 0))).count == 0


def test_it_is_a_value():
    a = channel_moments(np.ones((4, 2)))
    assert isinstance(a, Moments)
    with pytest.raises(AttributeError):
        a.count = 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    x = np.zeros((4, 3, 2, 2), np.float32)
    x[2, 1, 0, 1] = bad
    x[3, 1, 0, 1] = -bad
    with pytest.raises(VerificationError, match="not finite"):
        channel_moments(x)
