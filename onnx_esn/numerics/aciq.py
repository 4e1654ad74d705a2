"""Analytical clipping of a uniform quantizer (ACIQ), and its bias correction.

A range of ±α around the mean is cut into L equal parts of width Δ = 2α/L. For values of standard
deviation σ (Gauss) or mean deviation b (Laplace) the expected squared error is

    Gauss:    (α² + σ²)·erfc(α/(√2·σ)) − √(2/π)·α·σ·exp(−α²/(2σ²)) + α²/(3L²)
    Laplace:  2b²·exp(−α/b) + α²/(3L²)

the clipped tails and Δ²/12. The best α is a multiple of σ or b that depends on L alone. For Laplace
it is Lambert's W(3L²); for Gauss the root of the derivative, which is found numerically.

Quantized values have another mean and another norm than the weights; the correction gives a filter
both back: Ŵ ← ξ·(Ŵ − E Ŵ) + E W with ξ = ‖W − E W‖/‖Ŵ − E Ŵ‖.

Source: Banner, Nahshan, Soudry: "Post-training 4-bit quantization of convolution networks for
rapid-deployment", NeurIPS 2019, eqs. (5), (6), (12) and (13). As the authors' code does it, the
prior of a filter is the one whose α leaves the smaller error of its weights, and no clipping stands
beside them as a third choice. Eq. (13), ξ·(Ŵ + μ), scales the mean once more; we do not, so that
both moments are those of the weights.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer

_SQRT_2 = math.sqrt(2.0)
PRIORS = ("gauss", "laplace", "none")


def gauss_error(alpha: npt.ArrayLike, levels: npt.ArrayLike, sigma: float = 1.0) -> Floats:
    """Return the expected squared error at a clipping value, for normal values of deviation σ."""
    from scipy import special

    a = np.asarray(alpha, dtype=np.float64)
    tails = (a**2 + sigma**2) * special.erfc(a / (_SQRT_2 * sigma))
    tails -= math.sqrt(2.0 / math.pi) * a * sigma * np.exp(-(a**2) / (2.0 * sigma**2))
    return np.asarray(tails + _rounding(a, levels))


def laplace_error(alpha: npt.ArrayLike, levels: npt.ArrayLike, b: float = 1.0) -> Floats:
    """Return the expected squared error at a clipping value, for Laplace values of scale b."""
    a = np.asarray(alpha, dtype=np.float64)
    return np.asarray(2.0 * b**2 * np.exp(-a / b) + _rounding(a, levels))


def _rounding(alpha: Floats, levels: npt.ArrayLike) -> Floats:
    return np.asarray(alpha**2 / (3.0 * np.asarray(levels, dtype=np.float64) ** 2))


@functools.cache
def clipping_factor(prior: str, levels: int) -> float:
    """Return the best α in units of σ ("gauss") or b ("laplace") for a number of levels from 2."""
    from scipy import optimize, special

    if prior == "laplace":
        return float(special.lambertw(3.0 * levels**2).real)

    def slope(a: float) -> float:
        tails = a * special.erfc(a / _SQRT_2) - math.sqrt(2.0 / math.pi) * math.exp(-(a**2) / 2.0)
        return float(tails + a / (3.0 * levels**2))

    return float(optimize.brentq(slope, 0.0, 20.0, xtol=1e-14))


def level_count(bits: int, quantizer: Quantizer = MID_RISE) -> int:
    """Return the levels that b bits have: 2^b mid-rise, 2^b − 1 mid-tread, 1 where it has none."""
    return 1 + round(2.0 * float(quantizer.top_code(bits)))


def clipped_codes(
    W: npt.ArrayLike, bits: npt.ArrayLike, quantizer: Quantizer = MID_RISE, *, centred: bool = True
) -> tuple[Floats, Floats, Integers]:
    """Return codes (M, K), steps Δ (M,) and the priors (M,), as places in `PRIORS`.

    The codes stand for E W + Δ·code, or Δ·code if not `centred`. The prior of a filter is that of
    the smallest squared error; of equal ones the first.

    Args:
        W: weights (M, K), finite.
        bits: (M,), 0 … 8; filters below the quantizer's fewest bits, or of equal weights, get
            codes and a step of 0.
        quantizer: whose codes the levels are.
        centred: whether the levels lie around the mean, or around 0.
    """
    W = np.asarray(W, dtype=np.float64)
    b = np.broadcast_to(np.asarray(bits, dtype=np.int64), W.shape[:1])
    uneven = W.max(axis=1, initial=-np.inf) > W.min(axis=1, initial=np.inf)
    # Of equal weights the mean may differ in the last place.
    deviation = np.where(uneven[:, None], W - W.mean(axis=1, keepdims=True), 0.0)
    aimed = deviation if centred else W
    top = np.asarray(quantizer.top_code(b))[:, None]
    levels = 1.0 + 2.0 * top[:, 0]
    best = np.full(W.shape[0], np.inf)
    codes, step = np.zeros(W.shape), np.zeros(W.shape[0])
    chosen: Integers = np.zeros(W.shape[0], dtype=np.int64)
    for place, alpha in enumerate(_clippings(aimed, b, quantizer)):
        live = uneven & (alpha > 0) & (top[:, 0] > 0)
        delta = np.where(live, 2.0 * alpha / levels, 1.0)
        found = quantizer.round_codes(aimed / delta[:, None], top)
        error = ((aimed - delta[:, None] * found) ** 2).sum(axis=1)
        better = live & (error < best)
        codes[better], step[better], chosen[better] = found[better], delta[better], place
        best[better] = error[better]
    return codes, step, chosen


def _clippings(deviation: Floats, bits: Integers, quantizer: Quantizer) -> tuple[Floats, ...]:
    """The clipping values (M,) of each of `PRIORS`, none beyond the largest deviation."""
    peak = np.abs(deviation).max(axis=1, initial=0.0)
    scales = {
        "gauss": np.sqrt((deviation**2).mean(axis=1)),
        "laplace": np.abs(deviation).mean(axis=1),
    }
    found = []
    for prior, scale in scales.items():
        factor = np.zeros(bits.shape)
        for width in np.unique(bits):
            levels = level_count(int(width), quantizer)
            factor[bits == width] = clipping_factor(prior, levels) if levels > 1 else 0.0
        found.append(np.minimum(factor * scale, peak))
    return (*found, peak)


def corrected(W: npt.ArrayLike, codes: npt.ArrayLike, step: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the step ξ·Δ (M,) and the shift (M,): Ŵ = step·code + shift has W's mean and norm.

    The norm is that around the mean. Where all codes (M, K) of a filter are equal there is none to
    give back: the step stays, and the shift makes the mean.
    """
    W, k = np.asarray(W, dtype=np.float64), np.asarray(codes, dtype=np.float64)
    delta = np.asarray(step, dtype=np.float64)
    mean, middle = W.mean(axis=1), k.mean(axis=1)
    wanted = np.linalg.norm(W - mean[:, None], axis=1)
    had = np.linalg.norm(k - middle[:, None], axis=1) * delta
    xi = np.divide(wanted, had, out=np.ones_like(had), where=had > 0)
    return np.asarray(xi * delta), np.asarray(mean - xi * delta * middle)
