"""Mean and variance of each channel of a tensor; arrays are compact, like labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Expectation:
    """Moments of a tensor's channels; NaN where unknown, variance 0 where exactly constant.

    What is infinite is unknown as well: a model may hold infinities, a bias made of them must not.
    """

    mean: Floats
    variance: Floats

    def __post_init__(self) -> None:
        for name in ("mean", "variance"):
            values = getattr(self, name)
            if np.isinf(values).any():
                object.__setattr__(self, name, np.where(np.isinf(values), np.nan, values))

    def along(self, axis: int, size: int) -> tuple[Floats, Floats]:
        """Mean and variance (size,) along one axis, over the positions of all others."""
        others = tuple(a for a in range(self.mean.ndim) if a != axis)
        mean, variance = np.broadcast_arrays(self.mean, self.variance)
        first = mean.mean(axis=others)
        second = variance.mean(axis=others) + mean.var(axis=others)
        return np.broadcast_to(first, (size,)), np.broadcast_to(second, (size,))

    def channels(self, size: int) -> tuple[Floats, Floats]:
        """Mean and variance (size,) of the channels on axis 1.

        Raises:
            ValueError: they vary along other axes as well.
        """
        if any(n > 1 for x in (self.mean, self.variance) for n in np.delete(x.shape, 1)):
            raise ValueError("the expectation varies over positions")
        return self.along(1, size)
