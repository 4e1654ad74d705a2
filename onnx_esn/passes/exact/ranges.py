"""The range of what operators compute, from the ranges of what they read.

A filter behind Relu6 reads values from 0 to 6; with small weights and a negative bias, its own Relu
never opens. Such a channel is a constant, though no weight of it is zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.passes.exact.values import Floats

# Their result never falls as an operand grows.
RISING = {
    "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "LeakyRelu", "Max", "Min",
    "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
}  # fmt: skip

Range = tuple[Floats, Floats]


def rises(node: onnx.NodeProto) -> bool:
    """Whether the operator is one of `RISING` with the usual sign of its slope."""
    slopes = [a.f for a in node.attribute if a.name in ("alpha", "gamma")]
    return node.op_type in RISING and all(s >= 0 for s in slopes)


def combined(op: str, operands: Sequence[Range]) -> Range | None:
    """Range of a sum, difference or product; None for other operators."""
    with np.errstate(all="ignore"):
        if op in ("Add", "Sum"):
            ends = [np.add.reduce(np.broadcast_arrays(*x)) for x in zip(*operands, strict=True)]
            return _widened(ends[0], ends[1])
        if op == "Sub":
            (a, b), (c, d) = operands
            return _widened(a - d, b - c)
        if op in ("Mul", "Div"):
            (a, b), (c, d) = operands
            if op == "Div":
                if ((c <= 0) & (d >= 0)).any():
                    return None
                c, d = 1 / d, 1 / c
            corners = np.stack(np.broadcast_arrays(a * c, a * d, b * c, b * d))
            corners[np.isnan(corners)] = 0.0  # 0 · ∞: the values themselves are finite
            return _widened(corners.min(axis=0), corners.max(axis=0))
    return None


def _widened(low: Floats, high: Floats) -> Range:
    """A range with the rounding of float32 of its ends."""
    return low - np.abs(low) * 2.0**-22, high + np.abs(high) * 2.0**-22


def scaled(low: Floats, high: Floats, gain: Floats, shift: Floats) -> Range:
    """Range of gain·x + shift."""
    with np.errstate(invalid="ignore"):
        a, b = (np.where(gain == 0, 0.0, gain * x) for x in (low, high))
    a, b = np.minimum(a, b), np.maximum(a, b)
    error = np.abs(shift) * 2.0**-22
    return a + shift - (np.abs(a) * 2.0**-22 + error), b + shift + np.abs(b) * 2.0**-22 + error


def weighted(
    W: NDArray[np.generic], low: Floats, high: Floats, exposed: bool, rounding: float
) -> Range:
    """Range (M,) of Σ W·x over channels and taps, as computed.

    Args:
        W: (M, C, taps).
        low, high: range of each channel, (C,), or of the only one of each filter, (M, 1).
        exposed: whether taps can meet padding, which is 0.
        rounding: relative error of one operation.
    """
    if exposed:
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    up = np.maximum(W, 0).sum(axis=2, dtype=np.float64)
    down = np.minimum(W, 0).sum(axis=2, dtype=np.float64)
    slack = W[0].size * rounding
    # The error grows with the terms, but so does the distance from the end of the range.
    below = _sum(up, np.abs(low)) + _sum(-down, np.abs(high))
    above = _sum(up, np.abs(high)) + _sum(-down, np.abs(low))
    return (
        _sum(up, low) + _sum(down, high) - slack * below,
        _sum(up, high) + _sum(down, low) + slack * above,
    )


def _sum(weights: Floats, ends: Floats) -> Floats:
    """Σ over channels, (M,), where 0 · ∞ is 0."""
    open_ = ~np.isfinite(ends)
    finite = np.where(open_, 0.0, ends)
    total = weights @ finite if ends.ndim == 1 else (weights * finite).sum(axis=1)
    if open_.any():
        columns = open_ if ends.ndim == 1 else np.ones(1, np.bool_)
        w, e = weights[:, columns], ends[..., columns]
        e = np.where(np.isfinite(e), 0.0, e)
        total = total + np.where((w != 0) & (e != 0), np.sign(w) * e, 0.0).sum(axis=1)
    return np.asarray(total)
