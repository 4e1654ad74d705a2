from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.budgets import Target, parse_target
from onnx_esn.errors import OptionError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.2G", 1.2e9),
        ("300M", 300e6),
        ("300m", 300e6),
        ("5k", 5000),
        ("2 T", 2e12),
        ("42000", 42000),
        ("1e9", 1e9),
        (".5k", 500),
        (7, 7),
        (2.5, 2.5),
    ],
)
def test_absolute(text, value):
    target = parse_target(text)
    assert target == Target(value)
    assert target.resolve(1e30) == value


@pytest.mark.parametrize(("text", "share"), [("25%", 0.25), (" 12.5 % ", 0.125), ("100%", 1.0)])
def test_relative(text, share):
    target = parse_target(text)
    assert target == Target(share, relative=True)
    assert target.resolve(200) == share * 200


def test_a_target_is_returned_as_it_is():
    target = Target(0.5, relative=True)
    assert parse_target(target) is target


@pytest.mark.parametrize(
    "text",
    [
        *("", "%", "G", "1.2X", "ten", "1,2G", "0", "0%", "-5M", "-1%", "101%", "nan", "1e999"),
        *(float("nan"), float("inf"), 0, -1.0, True),
    ],
)
def test_refused_with_a_way_out(text):
    with pytest.raises(OptionError, match="25%"):
        parse_target(text)


@given(st.floats(1e-3, 1e15), st.booleans())
def test_reads_what_it_prints(value, relative):
    target = Target(min(value, 1.0) if relative else value, relative)
    again = parse_target(str(target))
    assert again.relative == relative
    assert again.value == pytest.approx(target.value, rel=1e-5)
