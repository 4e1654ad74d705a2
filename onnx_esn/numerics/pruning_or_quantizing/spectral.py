"""Below what the error of whole filters cannot get: bounds from the least eigenvalue.

With D the diagonal of H and λ the least eigenvalue of D^−½ H D^−½, H ⪰ λD. So

    zᵀ H z ≥ λ Σ H_ii z_i²,

and on the right each weight stands alone: rounded, it is at least as far off as its nearest code,
and of weights pruned, those cost least of which H_ii·w_i² is smallest. Weak where inputs nearly
depend on each other; blocks of few inputs have better ones (`code_bound`, `mask_search`).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, eigh

from onnx_esn.numerics.midrise import Floats


def least_eigenvalue(H: Floats) -> float:
    """λ of H (d, d) without the inputs that are always 0; 0 where it is not known to be above."""
    energy = H.diagonal()
    live = energy > 1e-300
    if not live.any():
        return 0.0
    root = np.sqrt(energy[live])
    C = H[np.ix_(live, live)] / root / root[:, None]
    try:
        least = float(eigh(C, eigvals_only=True, subset_by_index=[0, 0])[0])
    except LinAlgError:
        return 0.0
    # What rounding errors may have added.
    return max(least - 1e-12 * len(C), 0.0)


def rounding_bound(H: Floats, least: float, w: Floats, step: float, top: float) -> float:
    """Bound of (w − ŵ)ᵀ H (w − ŵ) for any half-integer codes up to `top` at a step.

    Args:
        H: second moments (d, d).
        least: their `least_eigenvalue`.
        w: the filter (d,).
        step: 0 for a filter of zeros, which nothing changes.
        top: the largest code.
    """
    if step <= 0:
        return 0.0
    a = np.abs(w) / step
    z = a - np.clip(np.floor(a) + 0.5, 0.5, max(top, 0.5))
    return least * step * step * float(H.diagonal() @ np.square(z))


def pruning_bound(parts: Floats, kept: int) -> float:
    """Bound for any mask of filters together that keeps so many weights, refitted or not.

    Args:
        parts: λ·H_ii·w_i² of each weight of each filter, in any shape.
        kept: how many stay.
    """
    flat = parts.reshape(-1)
    gone = flat.size - kept
    if gone <= 0:
        return 0.0
    return float(np.partition(flat, gone - 1)[:gone].sum())
