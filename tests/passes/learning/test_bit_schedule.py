"""Bits that are taken away one by one."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_esn.numerics.learning.intervals import intervals, narrowed
from onnx_esn.numerics.quantizers import MID_RISE, MID_TREAD
from onnx_esn.passes.learning.bit_schedule import descending


def start(bits, quantizer=MID_RISE, K=12):
    W = np.random.default_rng(0).normal(size=(len(bits), K))
    b = np.asarray(bits)
    step = quantizer.optimal_step(W, b)
    return W, intervals(W, quantizer.encode(W, step, b), step, b, quantizer)


def test_each_turn_has_one_bit_less_and_the_last_the_wanted_ones():
    W, own = start([2, 0, 4, 6])
    turns = [(x["a"].bits.tolist(), last) for x, last in descending({"a": own}, {"a": W}, 5)]
    assert turns == [
        ([5, 0, 5, 6], False),
        ([4, 0, 4, 6], False),
        ([3, 0, 4, 6], False),
        ([2, 0, 4, 6], True),
    ]


@pytest.mark.parametrize("start_bits", [None, 2])
def test_without_more_bits_there_is_one_turn(start_bits):
    W, own = start([2, 3])
    ((found, last),) = descending({"a": own}, {"a": W}, start_bits)
    assert last
    assert found["a"] is own


@pytest.mark.parametrize("quantizer", [MID_RISE, MID_TREAD])
def test_the_first_turn_starts_from_float_weights(quantizer):
    W, own = start([2, 7], quantizer)
    own.W[:] += 0.01  # learned before, say: of what keeps its bits nothing is lost
    (found, _), *_ = descending({"a": own}, {"a": W}, 5)
    x = found["a"]
    step = quantizer.optimal_step(W, np.array([5, 7]))
    codes = quantizer.encode(W, step, np.array([5, 7]))
    np.testing.assert_array_equal(x.codes()[0], codes[0])
    np.testing.assert_array_equal(x.W[1], own.W[1])
    np.testing.assert_array_equal(x.codes()[1], own.codes()[1])


def test_what_was_learned_is_what_is_narrowed():
    _, own = start([4, 4])
    own.W[0] = -own.W[0]
    less = narrowed(own, np.array([3, 4]))
    assert less.bits.tolist() == [3, 4]
    step = MID_RISE.optimal_step(own.W, np.array([3, 4]))
    np.testing.assert_array_equal(
        less.codes()[0], MID_RISE.encode(own.W, step, np.array([3, 4]))[0]
    )
    np.testing.assert_array_equal(less.codes()[1], own.codes()[1])
    assert narrowed(less, less.bits) is less
