from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from onnx_esn.numerics.equalization import (
    LARGEST,
    as_factors,
    channel_energy,
    common_octaves,
    wanted_octaves,
)

NONE = np.zeros(5, np.bool_)
CHANNEL = np.repeat(np.arange(5), 3)


def filters(seed: int = 0) -> npt.NDArray[np.float64]:
    """Weights (4, 15) of five channels with three taps each, every channel of another size."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, CHANNEL.size)) * 2.0 ** rng.uniform(-2, 2, 5)[CHANNEL]


def wanted(
    rows: npt.NDArray[np.float64], fixed: npt.NDArray[np.bool_] = NONE
) -> npt.NDArray[np.float64]:
    return wanted_octaves(channel_energy(rows, CHANNEL), fixed)


def sizes(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Root mean square of each channel's weights in filters of unit size."""
    unit = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True))
    return np.array([np.sqrt((unit[:, c == CHANNEL] ** 2).mean()) for c in range(5)])


def test_energy_of_many_filters_of_half_precision() -> None:
    rows = np.random.default_rng(0).normal(size=(150, CHANNEL.size)).astype(np.float16)
    exact = channel_energy(rows.astype(np.float64), CHANNEL)
    np.testing.assert_array_equal(channel_energy(rows, CHANNEL), exact)
    assert exact.shape == (150, 5)


def test_energy_is_the_mean_square_of_what_reads_a_channel() -> None:
    rows = filters()
    turned = np.random.default_rng(1).permutation(CHANNEL.size)
    found = channel_energy(rows[:, turned], CHANNEL[turned])
    for m, c in np.ndindex(4, 5):
        assert found[m, c] == pytest.approx((rows[m, c == CHANNEL] ** 2).mean())
    uneven = channel_energy(np.ones((2, 4)), np.array([0, 1, 1, 1]))
    np.testing.assert_allclose(uneven, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_scaling_by_what_is_wanted_leaves_channels_of_one_size(seed: int) -> None:
    rows = filters(seed)
    found = sizes(rows / 2.0 ** wanted(rows)[CHANNEL])
    np.testing.assert_allclose(found, found[0], rtol=2e-3)


def test_the_size_of_filters_and_channels_does_not_matter() -> None:
    rows = filters()
    by = np.array([3.0, -1.0, 0.0, 2.0, -2.0])
    scaled = rows * np.array([[1e-3], [1.0], [7.0], [1e4]]) * 2.0 ** by[CHANNEL]
    away = wanted(scaled) - wanted(rows) - by
    np.testing.assert_allclose(away, away[0], atol=4e-3)


def test_free_channels_are_to_come_to_the_size_of_fixed_ones() -> None:
    rows = filters()
    fixed = np.array([True, False, False, True, False])
    want = wanted(rows, fixed)
    assert want[fixed].tolist() == [0.0, 0.0]
    found = np.log2(sizes(rows / 2.0 ** want[CHANNEL]))
    np.testing.assert_allclose(found[~fixed], np.median(found[fixed]), atol=4e-3)


def test_channels_without_weights_are_to_be_as_small_as_can_be() -> None:
    rows = filters()
    rows[1] = 0.0  # a dead filter says nothing
    rows[:, CHANNEL == 3] = 0.0
    want = wanted(rows)
    assert want[3] == -LARGEST
    others = np.delete(want, 3)
    assert (others > -LARGEST).all()
    assert np.ptp(others) > 1
    rows[0, CHANNEL == 3] = 1e-30
    small = wanted(rows)
    assert small[3] == -LARGEST
    away = np.delete(small, 3) - others  # of the same channels; the median is another one
    np.testing.assert_allclose(away, away[0], atol=0.01)
    assert abs(away[0]) < 2


def test_single_channels_say_nothing() -> None:
    assert np.isnan(wanted_octaves(np.ones((4, 1)), NONE[:1])).all()
    assert np.isnan(wanted_octaves(np.zeros((4, 5)), NONE)).all()


def test_the_common_factor_is_the_root_mean_square_of_what_is_wanted() -> None:
    wishes = [
        (np.arange(5), np.array([1.0, np.nan, 3.0, 100.0, 2.0])),
        (np.array([4, 3, 0]), np.array([-4.0, 100.0, -6.0])),
    ]
    fixed = np.array([False, False, False, False, True])
    both = np.log2(np.sqrt((2.0**2 + 2.0**-12) / 2))
    np.testing.assert_allclose(common_octaves(wishes, fixed), [both, 0.0, 3.0, LARGEST, 0.0])
    assert common_octaves([], fixed).tolist() == [0.0] * 5


@pytest.mark.parametrize("exact", [False, True])
def test_factors_have_few_digits(exact: bool) -> None:
    octaves = np.linspace(-LARGEST, LARGEST, 1001)
    factors = as_factors(octaves, exact=exact)
    fraction, _ = np.frexp(factors)
    digits = 1 if exact else 8
    assert (fraction * 2.0**digits % 1.0 == 0.0).all()
    away = np.abs(np.log2(factors) - octaves).max()
    assert away <= (0.5 if exact else 2.0**-7.4)
    assert as_factors(np.zeros(1), exact=exact)[0] == 1.0
