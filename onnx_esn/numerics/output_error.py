"""The error of an output whose channels need not be in one unit, as noise over signal.

A detector's output holds pixels and probabilities side by side, and the sum of all squares knows
the pixels only: classes may be lost altogether at 35 dB. So each channel c is measured by itself,

    ε = mean over c of noise_c / (signal_c + noise_c),   error = ε / (1 − ε),

with signal_c = Σ ref² and noise_c = Σ (cand − ref)². A channel of which nothing is left counts 1 at
most, however silent it was. Of one channel the error is the plain Σ(cand − ref)²/Σref².
"""

from __future__ import annotations

import math

import numpy as np

from onnx_esn.numerics.midrise import Floats

# Signals are taken to be at least this part of the largest: below it float32 knows nothing.
_LEAST_SIGNAL = 1e-14


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of the channels of an output (N, …); None: all of it is one.

    - (N, A, B): the shorter one, as (N, 84, 8400) and (N, 25200, 85) of detectors;
    - (N, …, H, H, C) with C other than H: the last, as of channels-last exports and of heads by
      anchor;
    - other maps: the first behind N.
    """
    if len(shape) < 3:
        return None
    if len(shape) == 3:
        return 1 if shape[1] <= shape[2] else 2
    return len(shape) - 1 if shape[-3] == shape[-2] != shape[-1] else 1


def channel_squares(ref: Floats, cand: Floats, axis: int | None) -> tuple[Floats, Floats]:
    """signal (N, C) and noise (N, C) of outputs (N, …) with their channels along an axis."""
    n = len(ref) if ref.ndim else 1

    def squares(x: Floats) -> Floats:
        by = x.reshape(n, 1, -1) if axis is None else np.moveaxis(x, axis, 1)
        return np.asarray(np.square(by.reshape(n, by.shape[1], -1)).sum(axis=2))

    return squares(ref), squares(cand - ref)


def noise_shares(signal: Floats, noise: Floats) -> Floats:
    """noise_c / (signal_c + noise_c) of each channel (C,), from sums over all samples."""
    return noise / _whole(signal, noise)


def error_ratio(shares: Floats) -> float:
    """ε / (1 − ε), the noise over the signal, of the shares of all channels."""
    share = float(np.mean(shares))
    return math.inf if share >= 1.0 else share / (1.0 - share)


def sample_errors(signal: Floats, noise: Floats) -> Floats:
    """What each sample (N,) has of the error, which is the mean over them.

    Args:
        signal, noise: (N, C).
    """
    mean = noise.mean(axis=0)
    each = np.asarray((noise / _whole(signal.mean(axis=0), mean)).mean(axis=1))
    share = float(each.mean())
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(each > 0, each / (1.0 - min(share, 1.0)), 0.0)


def _whole(signal: Floats, noise: Floats) -> Floats:
    """signal_c + noise_c, and 1 where both are zero."""
    least = _LEAST_SIGNAL * float(signal.max(initial=0.0))
    whole = np.maximum(signal, least) + noise
    return np.asarray(np.where(whole > 0, whole, 1.0))
