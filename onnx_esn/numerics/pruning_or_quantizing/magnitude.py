"""What magnitude pruning leaves of a tensor, how heavy its tails are, and decibels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from onnx_esn.numerics.midrise import Floats, finite
from onnx_esn.numerics.pruning_or_quantizing import FULL_BITS

_EXACT = 1e-13  # of the energy: errors below it are rounding noise


def decibels(energy: float, error: float) -> float:
    """10·log10(energy/error): infinite where nothing is lost, NaN where there is nothing."""
    if energy <= 0:
        return math.nan
    if error <= _EXACT * energy:
        return math.inf
    return 10.0 * math.log10(energy / error)


def kept_count(count: int, bits: float) -> int:
    """How many of so many weights are kept at the compression of n bits; a half rounds up.

    So that a comparison is never unfair to pruning where n/16 of a few weights is no whole number,
    it rounds up always.
    """
    return min(count, math.ceil(count * bits / FULL_BITS - 1e-9))


def pruning_error(W: npt.ArrayLike, kept: int) -> float:
    """Energy of all weights but the largest `kept`.

    Raises:
        VerificationError: a weight is not finite.
    """
    squares: Floats = np.square(finite(W, "weight").reshape(-1))
    gone = squares.size - kept
    if gone <= 0:
        return 0.0
    return float(np.partition(squares, gone - 1)[:gone].sum())


def kept_share_with_mask(bits: float) -> float:
    """The share κ of weights that n bits a weight pay for if the mask costs its entropy.

    κ·16 + H₂(κ) = n, H₂ the binary entropy: no code of the mask can be shorter on average.
    """

    def over(share: float) -> float:
        entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
        return FULL_BITS * share + entropy - bits

    return float(brentq(over, 1e-12, bits / FULL_BITS * (1 - 1e-12), xtol=1e-15))


def excess_kurtosis(W: npt.ArrayLike) -> float:
    """E[(w − w̄)⁴]/E[(w − w̄)²]² − 3; NaN where all weights are the same.

    Raises:
        VerificationError: a weight is not finite.
    """
    w = finite(W, "weight").reshape(-1)
    if not w.size:
        return math.nan
    w = w - w.mean()
    peak = np.abs(w).max()
    if peak <= 1e-300:
        return math.nan
    squares = np.square(w / peak)
    return float(np.square(squares).mean() / squares.mean() ** 2 - 3.0)
