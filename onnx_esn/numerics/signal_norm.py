"""Signal norm of filters: the score that ranks them for removal, least first.

    ‖W_m·g_m‖²,   g = γ/√(σ² + ε) where BatchNormalization follows, else 1

Source: "Prune or quantize? Strategy for Pareto-optimally low-cost and accurate CNN", section 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import Floats

_AT_ONCE = 1 << 17  # elements


def signal_norm(W: npt.ArrayLike, gain: npt.ArrayLike | None = None) -> Floats:
    """Return the squared norm (M,) of each filter of W (M, K), times gain (M,) squared."""
    return _rowwise(lambda w: np.einsum("mk,mk->m", w, w), W) * np.square(_gain(gain))


def l1_norm(W: npt.ArrayLike, gain: npt.ArrayLike | None = None) -> Floats:
    """Return the sum of magnitudes (M,) of each filter of W (M, K), times |gain| (M,)."""
    return _rowwise(lambda w: np.abs(w).sum(axis=1), W) * np.abs(_gain(gain))


def batchnorm_gain(gamma: npt.ArrayLike, running_var: npt.ArrayLike, eps: float) -> Floats:
    """Return the factor γ/√(σ² + ε) (M,) that a BatchNormalization applies to each channel."""
    scale = np.sqrt(np.asarray(running_var, dtype=np.float64) + eps)
    return np.asarray(gamma, dtype=np.float64) / scale


def _gain(gain: npt.ArrayLike | None) -> Floats:
    return np.asarray(1.0 if gain is None else gain, dtype=np.float64)


def _rowwise(norm: Callable[[Floats], Floats], W: npt.ArrayLike) -> Floats:
    """A norm of each row, in float64 a few rows at a time: W may fill most of the memory."""
    W = np.asarray(W)
    rows = max(1, _AT_ONCE // max(1, W.shape[1]))
    with np.errstate(invalid="ignore", over="ignore"):  # what is no number stays none
        parts = [norm(W[i : i + rows].astype(np.float64)) for i in range(0, len(W), rows)]
    return np.concatenate(parts) if parts else np.empty(0)
