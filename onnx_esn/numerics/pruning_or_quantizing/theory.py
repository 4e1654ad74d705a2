"""What weights of a known density lose, by bits and by pruning: closed forms, nothing sampled.

Quantization to the integers c = −2^(n−1) … 2^(n−1) − 1, each weight to the nearest s·c: with the
cells' partial moments m₀, m₁ the error is E[w²] − 2s·Σ c·m₁(c) + s²·Σ c²·m₀(c), and s is the one
where that is least. Pruning of all |w| < t, P(|w| > t) = n/16: the error is E[w²; |w| < t].
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar

from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.pruning_or_quantizing import FULL_BITS
from onnx_esn.numerics.pruning_or_quantizing.distributions import Distribution

_STEPS = 256  # between which the best one is sought
_RANGE = (0.25, 400.0)  # of 2^(n−1) steps, in standard deviations


def quantization_error(weights: Distribution, step: float, bits: int) -> float:
    """Mean squared error of rounding to integers of n bits times a step."""
    half = 1 << (bits - 1)
    codes = np.arange(-half, half)
    edges = np.concatenate([[-np.inf], step * (codes[1:] - 0.5), [np.inf]])
    zeroth, first, _ = (np.diff(m) for m in weights.moments(edges))
    c = step * codes
    return float(weights.variance - 2.0 * (c * first).sum() + (c * c * zeroth).sum())


def optimal_step(weights: Distribution, bits: int) -> float:
    """The step at which rounding to integers of n bits has the least mean squared error."""
    unit = math.sqrt(weights.variance) / (1 << (bits - 1))
    steps: Floats = np.geomspace(_RANGE[0] * unit, _RANGE[1] * unit, _STEPS)
    errors = [quantization_error(weights, float(s), bits) for s in steps]
    best = min(max(int(np.argmin(errors)), 1), _STEPS - 2)
    found = minimize_scalar(
        lambda s: quantization_error(weights, s, bits),
        bounds=(steps[best - 1], steps[best + 1]),
        method="bounded",
        options={"xatol": 1e-9 * unit},
    )
    return float(found.x)


def quantization_snr(weights: Distribution, bits: int) -> float:
    """SNR in dB after rounding to integers of n bits at the best step."""
    error = quantization_error(weights, optimal_step(weights, bits), bits)
    return 10.0 * math.log10(weights.variance / error)


def pruning_snr(weights: Distribution, bits: float) -> float:
    """SNR in dB where n/16 of the weights, the largest, are kept."""
    threshold = weights.quantile(1.0 - 0.5 * bits / FULL_BITS)
    _, _, second = weights.moments(np.array([0.0, float(threshold)]))
    return 10.0 * math.log10(weights.variance / (2.0 * float(second[1] - second[0])))
