import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.numerics.pareto import pareto_front
from tests.oracles import numerics as oracle

number = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0, 2.0, np.inf, np.nan])


@given(st.lists(st.tuples(number, number), max_size=12))
def test_the_front_equals_its_definition(points):
    cost, value = [p[0] for p in points], [p[1] for p in points]
    known = [not (np.isnan(c) or np.isnan(v)) for c, v in points]
    expected = [a and b for a, b in zip(oracle.pareto_front(cost, value), known, strict=True)]
    assert pareto_front(cost, value).tolist() == expected


def test_equal_points_share_their_fate():
    assert pareto_front([1, 1, 2, 2, 3], [5, 5, 5, 6, 4]).tolist() == [1, 1, 0, 1, 0]
