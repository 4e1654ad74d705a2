"""Slow, obviously right counterparts of the mid-tread quantizer."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def code(w, step, top):
    """The nearest integer to w/Δ in exact arithmetic, ties to even, clipped."""
    return max(-top, min(top, round(Fraction(float(w)) / Fraction(float(step)))))


def encode(W, step, bits):
    codes = np.zeros(W.shape)
    for m, row in enumerate(W):
        top = 2 ** (int(bits[m]) - 1) - 1 if bits[m] else 0
        if step[m] > 0:
            codes[m] = [code(w, step[m], top) for w in row]
    return codes


def nearest_level_error(w, step, bits):
    """Squared error of each weight put on the nearest of the levels, tried one by one."""
    top = 2 ** (bits - 1) - 1
    levels = [k * step for k in range(-top, top + 1)]
    return sum(min((x - level) ** 2 for level in levels) for x in w)


def least_squared_error(w, bits, points=4000):
    """Brute force over a dense grid of steps, each one refined to the best step of its codes."""
    A = np.abs(np.asarray(w, dtype=np.float64))
    top = 2 ** (bits - 1) - 1
    best = float(A @ A)
    if not A.any() or top < 1:
        return best
    for step in np.geomspace(A.mean() / (2 * top), 2.0 * A.max(), points):
        c = np.minimum(np.floor(A / step + 0.5), top)
        if c.any():
            for delta in (step, (c @ A) / (c @ c)):
                best = min(best, float(((A - delta * c) ** 2).sum()))
    return best


def canonical(codes):
    """Divide the integer codes of a filter by their greatest common divisor."""
    divisor = math.gcd(*(int(abs(c)) for c in codes)) or 1
    return np.asarray(codes) / divisor
