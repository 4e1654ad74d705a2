"""Bound ≤ best of all codes ≤ what was found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_esn.numerics.pruning_or_quantizing.code_bound import code_bound
from onnx_esn.numerics.pruning_or_quantizing.fixed_step import code_error, fixed_step_codes
from onnx_esn.numerics.pruning_or_quantizing.spectral import least_eigenvalue, rounding_bound

from .problems import every_code_error, moments, problems

TOPS = {0.5: 7, 1.5: 5, 3.5: 4}  # the largest code, and how many weights can be gone through


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(sorted(TOPS)))
def test_no_choice_of_codes_is_below_the_bounds(data, top):
    P, w = data.draw(problems(TOPS[top]))
    best = every_code_error(P, w, top)
    codes = fixed_step_codes(P, w, top)
    slack = 1e-9 * float(w @ P @ w + np.trace(P))
    assert set(np.abs(codes)) <= set(np.arange(0.5, top + 1))
    assert code_bound(P, w, top) <= best + slack
    assert rounding_bound(P, least_eigenvalue(P), w, 1.0, top) <= best + slack
    assert best <= code_error(P, w, codes) + slack


@settings(max_examples=40, deadline=None)
@given(problems(12), st.sampled_from([0.5, 1.5, 7.5, 127.5]))
def test_the_semidefinite_bound_is_the_better_one(problem, top):
    P, w = problem
    spectral = rounding_bound(P, least_eigenvalue(P), w, 1.0, top)
    assert code_bound(P, w, top) >= 0.98 * spectral - 1e-6 * np.trace(P)


@pytest.mark.parametrize("top", [0.5, 1.5, 7.5])
def test_without_correlation_the_bound_is_the_optimum(top):
    rng = np.random.default_rng(3)
    P, a = np.diag(rng.uniform(0.1, 5.0, 16)), rng.normal(size=16) * top
    best = code_error(P, a, fixed_step_codes(P, a, top))
    assert code_bound(P, a, top) == pytest.approx(best, rel=1e-4)
    assert rounding_bound(P, least_eigenvalue(P), a, 1.0, top) == pytest.approx(best, rel=1e-9)


# The primal relaxation of these problems, solved by cvxpy 1.9.3 with SCS to 1e-10.
@pytest.mark.parametrize(
    ("n", "top", "value"),
    [(6, 1.5, 0.0843864), (12, 0.5, 0.1530501), (16, 7.5, 1.2446109), (24, 1.5, 0.1255571)],
)
def test_it_is_the_value_of_the_semidefinite_program(n, top, value):
    P, a = sdp_problem(n, top)
    assert value * (1 - 2e-4) <= code_bound(P, a, top) <= value * (1 + 1e-5)


def sdp_problem(n, top):
    rng = np.random.default_rng([n, round(2 * top)])
    return moments(rng, n, 0.4), rng.normal(size=n) * 0.6 * top


def test_compensation_helps_where_inputs_go_together():
    rng = np.random.default_rng(0)
    won = 0
    for _ in range(20):
        P, a = moments(rng, 16, 0.6), rng.normal(size=16) * 2
        nearest = np.clip(np.floor(a) + 0.5, -3.5, 3.5)
        found = code_error(P, a, fixed_step_codes(P, a, 3.5))
        assert found <= code_error(P, a, nearest) * (1 + 1e-12)
        won += found < 0.7 * code_error(P, a, nearest)
    assert won > 10


def test_inputs_that_are_always_zero_do_not_weaken_the_eigenvalue():
    P = np.diag([2.0, 0.0, 3.0])
    assert least_eigenvalue(P) == pytest.approx(1.0)
    assert least_eigenvalue(np.zeros((3, 3))) == 0.0
    assert rounding_bound(P, 1.0, np.zeros(3), 0.0, 1.5) == 0.0
