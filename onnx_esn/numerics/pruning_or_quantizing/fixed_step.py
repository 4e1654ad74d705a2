"""Codes for a few weights at a step that is given: little error (w − ŵ)ᵀ P (w − ŵ).

Rounding to nearest and sequential rounding (`numerics.compensation`), each followed by coordinate
descent until no single code can be changed for the better; the better of the two.
"""

from __future__ import annotations

import numpy as np

from onnx_esn.numerics.midrise import Floats, round_codes

_ROUNDS = 100


def fixed_step_codes(P: Floats, a: Floats, top: float) -> Floats:
    """Half-integer codes (n,) of magnitude up to `top`, for values a (n,) in units of the step.

    Args:
        P: symmetric and positive definite (n, n).
        a: the values.
        top: the largest code.
    """
    starts = (round_codes(a, top), _sequential(P, a, top))
    one, other = (_descended(P, a, c, top) for c in starts)
    return one if code_error(P, a, one) <= code_error(P, a, other) else other


def code_error(P: Floats, a: Floats, codes: Floats) -> float:
    """(a − c)ᵀ P (a − c)."""
    z = a - codes
    return float(z @ P @ z)


def _sequential(P: Floats, a: Floats, top: float) -> Floats:
    order = np.argsort(-P.diagonal(), kind="stable")
    # z Lᵀ L z with L upper triangular in this order: what is rounded moves those that follow.
    U = np.linalg.cholesky(np.linalg.inv(P[np.ix_(order, order)])).T
    v, codes = a[order].copy(), np.empty_like(a)
    for i in range(a.size):
        codes[order[i]] = round_codes(v[i], top)
        v[i + 1 :] -= (v[i] - codes[order[i]]) / U[i, i] * U[i, i + 1 :]
    return codes


def _descended(P: Floats, a: Floats, codes: Floats, top: float) -> Floats:
    c = np.array(codes, np.float64)
    slope = P @ (c - a)
    for _ in range(_ROUNDS):
        changed = False
        for i in range(a.size):
            new = float(round_codes(c[i] - slope[i] / P[i, i], top))
            change = new - c[i]
            # A tie is no reason to change.
            if change and change * (2.0 * slope[i] + change * P[i, i]) < -1e-12 * P[i, i]:
                c[i] = new
                slope += change * P[:, i]
                changed = True
        if not changed:
            break
    return np.asarray(c)
