"""Densities of weights, symmetric about 0, with the partial moments that errors are made of.

    moment_k(x) = ∫_{−∞}^x t^k f(t) dt,   k = 0, 1, 2

Student's t with ν degrees of freedom: −(ν + x²)/(ν − 1)·f(x) is the first one, and as
(1 + x²/ν)·f_ν is a multiple of the density for ν − 2, at x·√((ν − 2)/ν), the second one is
ν·((ν − 1)/(ν − 2)·F_{ν−2}(x·√((ν − 2)/ν)) − F_ν(x)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtr, stdtrit
from scipy.stats import t as student

from onnx_esn.numerics.midrise import Floats


class Distribution(Protocol):
    """A density of weights."""

    @property
    def name(self) -> str:
        """What to call it."""

    @property
    def variance(self) -> float:
        """Its second moment."""

    @property
    def excess_kurtosis(self) -> float:
        """E[w⁴]/E[w²]² − 3; infinite where the fourth moment is."""

    def moments(self, x: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
        """The partial moments of order 0, 1 and 2 up to x, in its shape; x may be infinite."""

    def quantile(self, share: npt.ArrayLike) -> Floats:
        """What this share lies below."""

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw so many weights."""


@dataclass(frozen=True)
class Gaussian:
    """The standard normal density."""

    name: str = "Gaussian"
    variance: float = 1.0
    excess_kurtosis: float = 0.0

    def moments(self, x: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
        """See `Distribution`."""
        x = np.asarray(x, np.float64)
        density = np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)
        finite = np.where(np.isfinite(x), x, 0.0)
        return ndtr(x), -density, np.asarray(ndtr(x) - finite * density)

    def quantile(self, share: npt.ArrayLike) -> Floats:
        """See `Distribution`."""
        return np.asarray(ndtri(np.asarray(share, np.float64)))

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """See `Distribution`."""
        return rng.standard_normal(count)


@dataclass(frozen=True)
class StudentT:
    """Student's t.

    Attributes:
        freedom: ν, above 2, where the variance is infinite.
    """

    freedom: float

    def __post_init__(self) -> None:
        if not self.freedom > 2:
            raise ValueError(f"{self.freedom} degrees of freedom: at 2 the variance is infinite")

    @property
    def name(self) -> str:
        """Such as ``Student-t, ν = 4``."""
        return f"Student-t, ν = {self.freedom:g}"

    @property
    def variance(self) -> float:
        """ν/(ν − 2)."""
        return self.freedom / (self.freedom - 2.0)

    @property
    def excess_kurtosis(self) -> float:
        """6/(ν − 4)."""
        return 6.0 / (self.freedom - 4.0) if self.freedom > 4 else np.inf

    def moments(self, x: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
        """See `Distribution`."""
        x, v = np.asarray(x, np.float64), self.freedom
        finite = np.where(np.isfinite(x), x, 0.0)
        density = np.where(np.isfinite(x), student.pdf(finite, v), 0.0)
        below = stdtr(v, x)
        narrower = stdtr(v - 2.0, x * np.sqrt((v - 2.0) / v))
        first = -(v + finite * finite) / (v - 1.0) * density
        second = v * ((v - 1.0) / (v - 2.0) * narrower - below)
        return np.asarray(below, np.float64), np.asarray(first), np.asarray(second, np.float64)

    def quantile(self, share: npt.ArrayLike) -> Floats:
        """See `Distribution`."""
        found = stdtrit(self.freedom, np.asarray(share, np.float64))
        return np.asarray(found, np.float64)

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """See `Distribution`."""
        return rng.standard_t(self.freedom, count)
