import math

import pytest

from onnx_esn.report import numbers as n


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1.00k"),
        (12345, "12.3k"),
        (999_400, "999k"),
        (999_600, "1.00M"),
        (999_999, "1.00M"),
        (41_500_000, "41.5M"),
        (1.23e9, "1.23G"),
        (5e12, "5.00T"),
        (1e24, "1000000E"),
        (3.14159, "3.14"),
        (0.012345, "0.0123"),
        (999.7, "1.00k"),
        (-12345, "−12.3k"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_si(value, text):
    assert n.si(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1_093_412, "1.09 MB"),
        (999_950, "1.00 MB"),
        (2.5e9, "2.50 GB"),
        (None, "–"),
    ],
)
def test_size(value, text):
    assert n.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.7994, "79.9 %"),
        (1, "100.0 %"),
        (0.9999, "99.9 %"),
        (0, "0.0 %"),
        (0.0001, "< 0.1 %"),
        (-0.0001, "> −0.1 %"),
        (-0.25, "−25.0 %"),
        (None, "–"),
    ],
)
def test_percent(value, text):
    assert n.percent(value) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-0.005, 0.003, "−0.5 ± 0.3 pp"),
        (0.0125, None, "+1.2 pp"),
        (0.0, 0.0, "±0.0 pp"),
        (0.0, 0.002, "0.0 ± 0.2 pp"),
        (None, None, "–"),
    ],
)
def test_points(value, error, text):
    assert n.points(value, error) == text


def test_share():
    assert n.share(0.7994, 0.009) == "79.9 ± 0.9 %"
    assert n.share(0.7994) == "79.9 %"
    assert n.share(1.0, 0.0) == "100.0 %"
    assert n.share(None, 0.1) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1531, "0.153×"),
        (1.0, "1.00×"),
        (12.31, "12.3×"),
        (1234.0, "1230×"),
        (0.0, "0.000×"),
        (0.0001, "< 0.001×"),
        (None, "–"),
    ],
)
def test_times(value, text):
    assert n.times(value) == text


def test_ratio():
    assert n.ratio(1, 4) == 0.25
    assert n.ratio(1, 0) is None
    assert n.ratio(None, 4) is None
    assert n.ratio(4, None) is None


def test_decibel():
    assert n.decibel(21.44) == "21.4 dB"
    assert n.decibel(math.inf) == "exact"
    assert n.decibel(-math.inf) == "−∞ dB"
    assert n.decibel(-3.0) == "−3.0 dB"
    assert n.decibel(None) == "–"


def test_milliseconds():
    assert n.milliseconds(0.4123) == "0.412 ms"
    assert n.milliseconds(12.34) == "12.3 ms"
    assert n.milliseconds(None) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0000"),
        (0.99996, "0.99996"),
        (0.9999999, "0.9999999"),
        (0.98764, "0.9876"),
        (-0.5, "−0.5000"),
        (1 - 1e-12, "1.0000"),
        (None, "–"),
    ],
)
def test_cosine(value, text):
    assert n.cosine(value) == text


def test_bits():
    assert n.bits(4.0) == "4"
    assert n.bits(3.7123) == "3.71"
    assert n.bits(None) == "–"


def test_significant_carries():
    assert n.significant(9.996) == "10.0"
    assert n.significant(99.96) == "100"
    assert n.significant(0) == "0"
    assert n.significant(0.00099999) == "0.00100"
