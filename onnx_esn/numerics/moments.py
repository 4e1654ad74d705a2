"""Mean and variance per channel of a stream of batches, exact however it is cut.

Two sets of samples merge by (count, mean, M2), M2 = Σ(x − mean)²:

    δ = mean_b − mean_a,  n = n_a + n_b
    mean = mean_a + δ·n_b/n,   M2 = M2_a + M2_b + δ²·n_a·n_b/n

Averaging the variances of batches instead would lose the variance of the batch means.

Source: Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.midrise import Floats

_CHUNK = 1 << 17  # values at a time: their float64 copies stay in the cache


@dataclass(frozen=True, eq=False)
class Moments:
    """Count of values, mean (C,) and M2 = Σ(x − mean)² (C,) of each channel, in float64."""

    count: int
    mean: Floats
    m2: Floats

    @property
    def variance(self) -> Floats:
        """Population variance (C,), M2/count; 0 where nothing was counted."""
        return self.m2 / max(self.count, 1)

    @property
    def std(self) -> Floats:
        """Population standard deviation (C,)."""
        return np.asarray(np.sqrt(self.variance))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of samples together."""
        count = self.count + other.count
        share = other.count / max(count, 1)
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * share,
            self.m2 + other.m2 + delta * delta * (self.count * share),
        )


def channel_moments(x: npt.NDArray[Any], axis: int = 1) -> Moments:
    """Return the moments over all axes but `axis` of x, such as (N, C, *spatial) or (N, C).

    Two passes over blocks in float64, so that float32 values of mean 1000 and standard deviation
    1e-2 keep their variance; the result does not depend on the order of batches beyond ~1e-9.

    Raises:
        VerificationError: a value is not finite, or too large to be squared.
    """
    x = np.asarray(x)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis {axis} of an array of shape {x.shape}")
    x = np.moveaxis(x, axis, 1) if x.ndim > 1 else x[None, :]
    N, C = x.shape[:2]
    area = int(np.prod(x.shape[2:]))
    mean, m2 = np.zeros(C), np.zeros(C)
    samples = max(1, _CHUNK // max(C * area, 1))
    channels = C if C * area <= _CHUNK else max(1, _CHUNK // area)
    for c in range(0, C, channels):
        part = Moments(0, mean[c : c + channels], m2[c : c + channels])
        for n in range(0, N, samples):
            part = part.merge(_block_moments(x[n : n + samples, c : c + channels]))
        mean[c : c + channels], m2[c : c + channels] = part.mean, part.m2
    return Moments(N * area, mean, m2)


def _block_moments(block: npt.NDArray[Any]) -> Moments:
    values = block.reshape(*block.shape[:2], -1).astype(np.float64)
    count = values.shape[0] * values.shape[2]
    with np.errstate(over="ignore", invalid="ignore"):  # reported below
        mean = values.mean(axis=2).mean(axis=0) if count else np.zeros(values.shape[1])
        values -= mean[:, None]
        m2 = np.einsum("ncs,ncs->c", values, values)
    if not np.isfinite(m2).all():
        raise VerificationError("values are not finite (NaN or infinity), or too large to square")
    return Moments(count, mean, m2)
