"""Who gets what, and what a process holds; no cluster is needed."""

from __future__ import annotations

import sys
from collections import deque

import pytest

from onnx_esn.cluster import held
from onnx_esn.cluster.connection import knock
from onnx_esn.cluster.dispatch import _next, _Worker
from onnx_esn.cluster.versions import differences, processor, versions
from onnx_esn.errors import OptionError


def test_bit_widths_of_a_ratio_go_to_one_worker():
    kinds = [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]
    queue = deque(range(6))
    workers = [_Worker("a"), _Worker("b")]
    order = [_next(queue, kinds, workers[i % 2], workers) for i in range(6)]
    assert order == [0, 3, 1, 4, 2, 5]


def test_without_kinds_they_go_in_turn():
    queue = deque(range(3))
    workers = [_Worker("a"), _Worker("b")]
    assert [_next(queue, [None] * 3, workers[i % 2], workers) for i in range(3)] == [0, 1, 2]


@pytest.fixture(autouse=True)
def _nothing_held():
    held._held.clear()
    held._parts.clear()
    yield
    held._held.clear()


def keep(part):
    return part


def add(things, item):
    return things["n"] + item


def test_parts_become_a_thing():
    for i in range(3):
        held.receive("k", i, i, keep)
    held.receive("k", 1, 1, keep)  # sent twice
    assert held.assemble("k", 3, sum)
    assert held.call(add, {"n": "k"}, 10) == 13


def test_a_lost_part_is_noticed():
    held.receive("k", 0, 0, keep)
    assert not held.assemble("k", 2, sum)
    assert not held.assemble("k", 1, sum), "the parts are gone"
    assert held.call(add, {"n": "k"}, 10) == held.Missing(("k",))


def test_what_was_not_used_for_longest_goes():
    for i in range(held.MOST):
        assert held.reach(str(i), lambda: 0) == ""
    assert held.call(add, {"n": "0"}, 1) == 1
    held.reach("new", lambda: 0)
    assert held.missing(["0", "1", "2", "new"]) == held.Missing(("1",))


def test_what_cannot_be_reached_says_why():
    def fetch():
        raise OSError("no such folder")

    assert held.reach("k", fetch) == "no such folder"
    assert held.missing(["k"]).keys == ("k",)


def test_dask_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(OptionError, match=r"needs dask: pip install 'onnx-esn\[cluster\]'"):
        knock("tcp://127.0.0.1:8786")


def test_versions():
    mine = versions()
    assert {"python", "numpy", "onnxruntime", "onnx-esn", "pillow"} <= set(mine)
    assert differences(mine, dict(mine)) == ""
    assert differences({"a": "1", "b": "2"}, {"a": "1", "b": "3"}) == "b 3 (here 2)"
    assert differences({"a": "1"}, {}) == "a missing (here 1)"
    assert processor() == processor() != ""
