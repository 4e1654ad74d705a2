"""Indices and their short form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.graph.index_runs import packed, unpacked


@given(st.lists(st.integers(0, 60), unique=True))
def test_there_and_back(indices):
    assert unpacked(packed(sorted(indices))) == sorted(indices)
    assert unpacked(packed(indices)) == indices


def test_long_runs_are_text_and_short_ones_stay_numbers():
    assert packed([0, 1, 2, 5, *range(7, 15), 20]) == [0, 1, 2, 5, "7-14", 20]
    assert packed([]) == []


@pytest.mark.parametrize("entries", [["5"], ["a-b"], [None], ["1-2-3"]])
def test_damage_is_an_error(entries):
    with pytest.raises((ValueError, TypeError)):
        unpacked(entries)
