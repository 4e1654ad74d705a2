import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.numerics.esn import bits, bits_literal, esn_a, esn_d, esn_prime, filter_bits
from tests.oracles import numerics as oracle

CODES = np.arange(-128, 128) + 0.5


def test_bits_count_the_levels():
    assert bits(CODES).tolist() == [oracle.code_width(c) for c in CODES]
    assert bits(0) == 0
    assert bits([0.5, 1.5, 2.5, 3.5, 4.5, 7.5, 8.5, 127.5]).tolist() == [1, 2, 3, 3, 4, 4, 5, 8]


def test_bits_are_exact_around_powers_of_two_of_any_size():
    for e in range(1, 50):
        assert bits(2.0**e - 0.5) == 1 + e
        assert bits(2.0**e + 0.5) == 2 + e


def test_the_literal_formula_differs_only_at_one_half():
    literal = [math.ceil(math.log2(abs(c)) + 1) for c in CODES]
    assert bits_literal(CODES).tolist() == literal
    assert bits_literal([0.0, 0.5]).tolist() == [0, 0]
    large = np.abs(CODES) >= 1.5
    np.testing.assert_array_equal(bits(CODES)[large], bits_literal(CODES)[large])


@given(st.floats(1e-6, 1e6))
def test_bits_of_arbitrary_values(x):
    n = int(bits(x))
    assert n >= 1
    assert abs(x) <= 2.0 ** (n - 1) - 0.5 or n == 1
    assert n == 1 or abs(x) > 2.0 ** (n - 2) - 0.5


def test_costs_equal_their_sums():
    W_int = np.array([[0.5, -3.5], [0.0, 0.0], [7.5, 1.5]])
    c = np.array([2.0, 5.0, 10.0])
    assert filter_bits(W_int).tolist() == [3, 0, 4]
    assert filter_bits(np.full((1, 3), 0.5), bits_literal).tolist() == [0]
    assert esn_a(W_int) == pytest.approx(0.25 + 12.25 + 56.25 + 2.25)
    assert esn_a(W_int, c) == pytest.approx(2 * 12.5 + 10 * 58.5)
    assert esn_d(W_int) == 1 + 3 + 4 + 2
    assert esn_d(W_int, 3) == 30
    assert esn_d(W_int, c) == 2 * 4 + 10 * 6
    assert esn_d(W_int, 1, bits_literal) == 0 + 3 + 4 + 2
    assert esn_prime(c, filter_bits(W_int)) == 2 * 3 + 10 * 4
    assert esn_prime(9, filter_bits(W_int)) == 9 * 7


def test_costs_of_another_length_are_refused():
    with pytest.raises(ValueError, match="filters"):
        esn_d(np.ones((3, 2)), np.ones(2))
