import math

import numpy as np
import pytest

from onnx_esn.numerics.pareto import cost_at, pareto_front


def test_linear_in_the_log_of_the_cost():
    assert math.isclose(cost_at([4, 1], [0.9, 0.5], 0.7), 2.0)
    assert cost_at([1, 4], [0.5, 0.9], 0.5) == 1
    assert cost_at([1, 4], [0.5, 0.9], 0.9) == 4


@pytest.mark.parametrize("level", [0.4, 0.95])
def test_outside(level):
    assert cost_at([1, 4], [0.5, 0.9], level) is None
    assert cost_at([], [], level) is None


def test_a_dearer_point_that_is_worse_does_not_count():
    assert cost_at([1, 2, 8], [0.5, 0.3, 0.9], 0.9) == 8
    assert math.isclose(cost_at([1, 2, 8], [0.5, 0.5, 0.9], 0.7), 4.0)


def test_nan_and_infinity():
    assert cost_at([1, 2, 4], [0.5, np.nan, 0.9], 0.9) == 4
    assert cost_at([1, 4], [10.0, np.inf], 20.0) == 4


def test_front_with_a_tolerance():
    cost, value = [99.9, 100, 200], [0.5, 0.9, 0.95]
    assert pareto_front(cost, value).tolist() == [True, True, True]
    assert pareto_front(cost, value, tolerance=0.01).tolist() == [False, True, True]
