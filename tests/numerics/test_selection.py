import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.selection import select_removals
from tests.oracles import numerics as oracle


@settings(deadline=None)
@given(st.data())
def test_the_selection_equals_the_loop(data):
    G = data.draw(st.integers(0, 10))
    score = data.draw(st.lists(st.integers(0, 4), min_size=G, max_size=G))
    weight = data.draw(st.lists(st.integers(0, 5), min_size=G, max_size=G))
    member = st.lists(st.integers(0, G - 1), max_size=G) if G else st.just([])
    constraints = data.draw(st.lists(member, max_size=4))
    minimum = data.draw(
        st.lists(st.integers(0, 3), min_size=len(constraints), max_size=len(constraints))
    )
    budget = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=3))
    account = data.draw(st.lists(st.integers(0, len(budget) - 1), min_size=G, max_size=G))
    found = select_removals(
        score, weight, constraints, budget=budget, minimum=minimum, account=account
    )
    expected = oracle.select_removals(score, weight, constraints, budget, minimum, account)
    assert found.tolist() == expected


def test_the_least_score_goes_first_and_ties_by_index():
    score = [3.0, 1.0, 2.0, 1.0]
    found = select_removals(score, np.ones(4), [], budget=3)
    assert found.tolist() == [False, True, True, True]
    assert select_removals(score, np.ones(4), [], budget=1).tolist() == [0, 1, 0, 0]


def test_a_class_too_heavy_is_passed_over():
    assert select_removals([0, 1, 2], [1, 9, 1], [], budget=2).tolist() == [True, False, True]


def test_every_set_keeps_its_minimum():
    found = select_removals(np.arange(6), np.ones(6), [[0, 1, 2], [2, 3], [5]], budget=99)
    assert found.tolist() == [True, True, False, True, True, False]
    found = select_removals(np.arange(6), np.ones(6), [np.arange(6)], budget=99, minimum=8)
    assert not found.any()
    found = select_removals(np.arange(6), np.ones(6), [[0, 1, 2], [3, 4, 5]], budget=99,
                            minimum=[1, 2])  # fmt: skip
    assert found.tolist() == [True, True, False, True, False, False]


def test_a_class_counts_as_often_as_a_constraint_holds_it():
    """Two filters of a layer that go together are two filters less."""
    found = select_removals([0, 1, 2], np.ones(3), [[0, 0, 1, 1, 2]], budget=99, minimum=2)
    assert found.tolist() == [True, False, True]


def test_each_account_has_its_own_budget():
    found = select_removals(np.arange(6), np.ones(6), [], budget=[1, 2], account=[0, 0, 1, 1, 1, 0])
    assert found.tolist() == [True, False, True, True, False, False]


def test_a_budget_from_a_ratio_is_not_lost_to_rounding():
    assert 0.29 * 100 < 29
    assert select_removals(np.arange(100), np.ones(100), [], budget=0.29 * 100).sum() == 29


def test_wrong_values_are_refused():
    with pytest.raises(VerificationError, match="score"):
        select_removals([np.nan], [1.0], [], budget=1)
    with pytest.raises(VerificationError, match="weight"):
        select_removals([0.0], [-1.0], [], budget=1)
