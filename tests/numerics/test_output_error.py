"""Outputs whose channels are in different units, and maps of classes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from onnx_esn.numerics.agreement import agreement, divergence, divergences
from onnx_esn.numerics.output_error import channel_axis

UNITS = np.array([200.0, 200.0, 50.0, 50.0, 0.01, 0.02])  # two corners, two sizes, two classes


def detector(seed=0):
    """Boxes and probabilities of 30 places, (8, 6, 30)."""
    return np.random.default_rng(seed).normal(size=(8, 6, 30)) * UNITS[:, None]


def naive(ref, cand, axis):
    """ε / (1 − ε), one number at a time."""
    shares = []
    for r, c in zip(np.moveaxis(ref, axis, 0), np.moveaxis(cand, axis, 0), strict=True):
        signal = sum(float(v) ** 2 for v in r.ravel())
        noise = sum((float(b) - float(a)) ** 2 for a, b in zip(r.ravel(), c.ravel(), strict=True))
        shares.append(noise / (signal + noise))
    mean = sum(shares) / len(shares)
    return mean / (1 - mean)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((8,), None),
        ((8, 5), None),
        ((8, 84, 8400), 1),
        ((8, 25200, 85), 2),
        ((8, 6, 6), 1),
        ((8, 21, 64, 64), 1),
        ((8, 512, 7, 7), 1),
        ((8, 13, 13, 255), 3),
        ((8, 13, 13, 13), 1),
        ((8, 3, 13, 13, 85), 4),
        ((8, 64, 5, 7, 7), 1),
    ],
)
def test_where_channels_are(shape, axis):
    assert channel_axis(shape) == axis


@pytest.mark.parametrize("axis", [1, 2])
def test_the_error_equals_the_loops(axis):
    ref = np.moveaxis(detector(), 1, axis)
    cand = ref + 0.1 * np.moveaxis(detector(1), 1, axis)
    found = agreement(ref, cand)
    assert found.normalized_error == pytest.approx(naive(ref, cand, axis), rel=1e-12)
    assert found.snr_db == pytest.approx(-10 * math.log10(naive(ref, cand, axis)), rel=1e-12)
    assert (found.top1, found.kl) == (None, None)
    each = divergences({"y": ref}, {"y": cand})
    assert each.mean() == pytest.approx(naive(ref, cand, axis), rel=1e-12)
    assert divergence({"y": ref}, {"y": cand}) == pytest.approx(each.mean(), rel=1e-12)


def test_classes_that_are_lost_show_beside_boxes_that_are_not():
    ref = detector()
    lost, coarse = ref.copy(), ref + 0.05 * detector(1)
    lost[:, 4:] = 0.0
    energy = np.square(ref).sum()
    assert np.square(lost - ref).sum() < np.square(coarse - ref).sum() < 0.01 * energy
    assert divergence({"y": coarse}, {"y": ref}) < 0.01
    assert divergence({"y": ref}, {"y": lost}) == pytest.approx((2 / 6 * 1 / 2) / (1 - 1 / 6))


@given(
    units=st.lists(st.floats(1e-2, 1e2), min_size=6, max_size=6),
    noise=st.floats(1e-3, 10.0),
    seed=st.integers(0, 99),
)
def test_units_do_not_matter(units, noise, seed):
    ref = detector(seed) / UNITS[:, None]
    cand = ref + noise * np.random.default_rng(seed + 1).normal(size=ref.shape)
    scale = np.array(units)[:, None]
    plain = divergences({"y": ref}, {"y": cand})
    scaled = divergences({"y": ref * scale}, {"y": cand * scale})
    np.testing.assert_allclose(scaled, plain, rtol=1e-5)


def test_more_noise_diverges_more_however_much_there_is():
    ref, noise = detector(), detector(1)
    found = [divergence({"y": ref}, {"y": ref + s * noise}) for s in (0.1, 1.0, 3.0, 10.0, 100.0)]
    assert found == sorted(found)
    assert len(set(found)) == 5


def test_a_silent_channel_counts_as_one_at_most():
    ref = detector()
    ref[:, 5] = 0.0
    assert agreement(ref, ref).normalized_error == 0.0
    cand = ref.copy()
    cand[:, 5] = 1e-3
    assert agreement(ref, cand).normalized_error == pytest.approx((1 / 6) / (5 / 6), rel=1e-3)
    # What float32 cannot tell from nothing is nothing.
    cand[:, 5] = 1e-9
    assert agreement(ref, cand).normalized_error < 1e-5


@pytest.mark.parametrize("axis", [1, 2])
def test_a_map_of_classes_is_compared_place_by_place(axis):
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(5, 9, 4))
    other = logits + rng.normal(size=logits.shape)
    ref, cand = (np.moveaxis(softmax(x, axis=2), 2, axis) for x in (logits, other))
    found = agreement(ref, cand)
    rows = agreement(logits.reshape(45, 4), other.reshape(45, 4))
    assert found.top1 == rows.top1
    assert 0 < found.top1 < 1
    assert found.kl == pytest.approx(rows.kl, rel=1e-9)
    assert found.samples == 5
    assert found.normalized_error == pytest.approx(np.square(cand - ref).sum() / (ref**2).sum())
    each = divergences({"y": ref}, {"y": cand})
    assert each.shape == (5,)
    assert each.mean() == pytest.approx(rows.kl, rel=1e-9)
    first = agreement(logits[0], other[0])
    assert each[0] == pytest.approx(first.kl, rel=1e-9)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.bool_])
def test_labels_are_equal_or_not(dtype):
    """Of an ArgMax: label 6,000 is no farther from label 2 than label 3 is."""
    rng = np.random.default_rng(0)
    ref = rng.integers(0, 2 if dtype is np.bool_ else 6000, size=(5, 40)).astype(dtype)
    cand = ref.copy()
    cand[0, :10], cand[3, 7] = ~ref[0, :10], ~ref[3, 7]
    found = agreement(ref, cand)
    assert found.top1 == pytest.approx(1 - 11 / 200)
    assert found.kl is None
    np.testing.assert_allclose(divergences({"y": ref}, {"y": cand}), [0.25, 0, 0, 1 / 40, 0])
    assert divergence({"y": ref}, {"y": ref}) == 0.0


def test_small_integers_are_numbers():
    ref = np.full((2, 1, 4, 4), 200, np.uint8)
    found = agreement(ref, ref - 2)
    assert found.top1 is None
    assert found.normalized_error == pytest.approx(1e-4)
