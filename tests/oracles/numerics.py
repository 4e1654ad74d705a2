"""Slow, obviously right counterparts of onnx_esn.numerics: loops, brute force, fractions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
from scipy.optimize import LinearConstraint, milp


def encode(W, step, bits, pruned_rule=True):
    codes = np.zeros(W.shape)
    for m, row in enumerate(W):
        if bits[m] == 0 or step[m] == 0 or all(w == 0 for w in row):
            continue
        if pruned_rule and all(abs(w) < step[m] / 2 for w in row):
            continue
        top = 2 ** (int(bits[m]) - 1) - 0.5
        for k, w in enumerate(row):
            codes[m, k] = max(-top, min(top, math.floor(w / step[m]) + 0.5))
    return codes


def nearest_level_error(w, step, bits):
    """Squared error of each weight put on the nearest of the 2^b levels, tried one by one."""
    levels = [(k + 0.5) * step for k in range(-(2 ** (bits - 1)), 2 ** (bits - 1))]
    return sum(min((x - level) ** 2 for level in levels) for x in w)


def least_squared_error(w, bits, points=20000):
    """Brute force over a dense grid of steps, each one refined to the best step of its codes."""
    A = np.abs(np.asarray(w, dtype=np.float64))
    if not A.any():
        return 0.0
    L = 2 ** (bits - 1)
    best = math.inf
    for step in np.geomspace(A.mean() / L, 2.0 * A.max(), points):
        code = np.minimum(np.floor(A / step), L - 1) + 0.5
        for delta in (step, (code @ A) / (code @ code)):
            best = min(best, float(((A - delta * code) ** 2).sum()))
    return best


def code_width(half_integer: float) -> int:
    """Bits of a code by counting: how many does it take until a level of that size exists?"""
    if half_integer == 0:
        return 0
    b = 1
    while 2 ** (b - 1) - 0.5 < abs(half_integer):
        b += 1
    return b


def canonical_odds(codes):
    """Divide the odd integers 2·|code| of a filter by their greatest common divisor."""
    odds = [round(2 * abs(c)) for c in codes]
    divisor = math.gcd(*odds)
    return [odd // divisor for odd in odds]


def best_allocation(D, C, budget, minimum=0):
    """Least total distortion within the budget, over all allocations."""
    best = math.inf
    for choice in itertools.product(range(minimum, D.shape[1]), repeat=D.shape[0]):
        if sum(C[f, b] for f, b in enumerate(choice)) <= budget:
            best = min(best, sum(D[f, b] for f, b in enumerate(choice)))
    return best


def milp_allocation(D, C, budget, relaxed=False):
    """Return the optimum of the multiple-choice knapsack by HiGHS, or of its relaxation."""
    F, B = D.shape
    one_each = LinearConstraint(np.kron(np.eye(F), np.ones(B)), 1, 1)
    within = LinearConstraint(C.reshape(1, -1), -np.inf, budget)
    result = milp(
        D.ravel(),
        constraints=[one_each, within],
        bounds=(0, 1),
        integrality=np.zeros(F * B) if relaxed else np.ones(F * B),
        options={"mip_rel_gap": 0.0},
    )
    return result.fun


def exact_moments(values):
    """Mean and population variance of floats as exact fractions, rounded once."""
    numbers = [Fraction(float(v)) for v in values]
    mean = sum(numbers) / len(numbers)
    return float(mean), float(sum((n - mean) ** 2 for n in numbers) / len(numbers))


def gaussian_moments(f, mean, std, breaks=()):
    """Mean and variance of f(x), x ~ N(mean, std²), by adaptive quadrature between the kinks."""
    from scipy.integrate import quad

    low, high = mean - 10 * std, mean + 10 * std
    edges = [low, *sorted(b for b in breaks if low < b < high), high]
    cuts = np.unique(np.concatenate([edges, np.linspace(low, high, 41)]))

    def integral(g):
        def integrand(x):
            return g(x) * math.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))

        return sum(quad(integrand, a, b, epsabs=1e-12)[0] for a, b in itertools.pairwise(cuts))

    first = integral(lambda x: float(f(np.array(x))))
    return first, integral(lambda x: (float(f(np.array(x))) - first) ** 2)


def pareto_front(cost, value):
    def dominates(a, b):
        no_worse = cost[a] <= cost[b] and value[a] >= value[b]
        return no_worse and (cost[a] < cost[b] or value[a] > value[b])

    points = range(len(cost))
    return [not any(dominates(a, b) for a in points) for b in points]


def select_removals(score, weight, constraints, budget, minimum, account):
    removed: set[int] = set()
    for g in sorted(range(len(score)), key=lambda i: (score[i], i)):
        trial = removed | {g}
        if sum(weight[i] for i in trial if account[i] == account[g]) > budget[account[g]]:
            continue
        touched = [(s, least) for s, least in zip(constraints, minimum, strict=True) if g in s]
        if all(sum(i not in trial for i in s) >= least for s, least in touched):
            removed = trial
    return [g in removed for g in range(len(score))]
