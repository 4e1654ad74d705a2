"""Threads change no result."""

import numpy as np
import pytest

from onnx_esn.errors import VerificationError
from onnx_esn.numerics import step_size, threads
from onnx_esn.numerics.step_size import optimal_step, step_for_all_bits


def test_results_are_in_order_of_the_parts(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 3)
    assert threads.each(lambda n: n * n, range(20)) == [n * n for n in range(20)]
    assert threads.each(str, []) == []


def test_what_one_part_raises_is_raised(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 2)

    def refuse(n):
        if n == 3:
            raise VerificationError("no")
        return n

    with pytest.raises(VerificationError, match="no"):
        threads.each(refuse, range(9))


def test_the_environment_may_say_fewer(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads.thread_count() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    assert threads.thread_count() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # nested levels: not ours
    assert threads.thread_count() >= 1


@pytest.mark.parametrize("search", [lambda W: optimal_step(W, 4), step_for_all_bits])
def test_steps_do_not_depend_on_the_number_of_threads(search, monkeypatch):
    W = np.random.default_rng(0).normal(size=(40, 70))
    monkeypatch.setattr(step_size, "_CHUNK", 500)
    found = []
    for count in (1, 4):
        monkeypatch.setattr(threads, "thread_count", lambda count=count: count)
        found.append(search(W))
    np.testing.assert_array_equal(found[0], found[1])
