"""Bringing a channel's mean and standard deviation back to the reference's.

Compression changes the mean m̂ and the standard deviation ŝ of a layer's output per channel; the
reference has m and s on the same images.

Without BatchNormalization: scale the filter by r = s/ŝ and set its bias b' = r·(b − m̂) + m.

With it, the reference computes y = γ(x − m_r)/√(v_r + ε) + β with the stored statistics m_r, v_r.
The compressed model's y has the same mean and standard deviation where

    √(v' + ε) = √(v_r + ε)·ŝ/s        (standard deviation: γ·ŝ/√(v' + ε) = γ·s/√(v_r + ε))
    m' = m̂ − (m − m_r)·ŝ/s            (mean: (m̂ − m')/√(v' + ε) = (m − m_r)/√(v_r + ε))

m_r, v_r need not be the reference's true moments on these images, and usually are not.

Source: REPAIR (Jordan et al. 2022), for the matching; the shrinkage and the form for stored
statistics are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import Floats

SHRINKAGE = 1e-3


def match_ratio(
    reference_std: npt.ArrayLike, std: npt.ArrayLike, shrinkage: float = SHRINKAGE
) -> Floats:
    """Return r (C,) = √((s² + τ)/(ŝ² + τ)), τ = shrinkage · mean of s² over the layer's channels.

    τ keeps the ratio of a collapsed channel (ŝ → 0) near √(1/shrinkage) at most for a typical s;
    r is 1 where the reference has no variance anywhere and neither has the channel.
    """
    s2 = np.square(np.asarray(reference_std, dtype=np.float64))
    hat2 = np.square(np.asarray(std, dtype=np.float64))
    return _shrunk(s2, hat2, _tau(s2, shrinkage))


def batchnorm_for_match(
    mean_hat: npt.ArrayLike,
    var_hat: npt.ArrayLike,
    mean_ref: npt.ArrayLike,
    var_ref: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    eps: float,
    shrinkage: float = SHRINKAGE,
) -> tuple[Floats, Floats]:
    """Return (running_mean', running_var') (C,) for the compressed model's BatchNormalization.

    mean_hat, var_hat are the moments of its input; mean_ref, var_ref those of the reference's;
    running_mean, running_var, eps the reference's stored statistics. The mean of the output matches
    exactly, its standard deviation up to the shrinkage of `match_ratio` and up to v' ≥ 0.
    """
    m_hat, m = np.asarray(mean_hat, dtype=np.float64), np.asarray(mean_ref, dtype=np.float64)
    v_hat, v = np.asarray(var_hat, dtype=np.float64), np.asarray(var_ref, dtype=np.float64)
    m_r = np.asarray(running_mean, dtype=np.float64)
    scale2 = np.asarray(running_var, dtype=np.float64) + eps
    wanted = _shrunk(v_hat, v, _tau(v, shrinkage))  # ŝ/s
    var = np.maximum(scale2 * np.square(wanted) - eps, 0.0)
    reached = np.sqrt((var + eps) / scale2)  # ŝ/s as the BatchNormalization will apply it
    return m_hat - (m - m_r) * reached, var


def _tau(reference_variance: Floats, shrinkage: float) -> float:
    return shrinkage * float(reference_variance.mean()) if reference_variance.size else 0.0


def _shrunk(numerator: Floats, denominator: Floats, tau: float) -> Floats:
    below = denominator + tau
    safe = np.where(below > 0, below, 1.0)
    return np.sqrt(np.where(below > 0, (numerator + tau) / safe, 1.0))
