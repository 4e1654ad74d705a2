"""Adam: steps of about one size in every coordinate, whatever the size of its gradient.

    m ← β₁m + (1 − β₁)g,  v ← β₂v + (1 − β₂)g²,  x ← x − η·m̂/(√v̂ + ε)

Source: Kingma and Ba (2015), "Adam: a method for stochastic optimization", algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import Floats

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-12


class Adam:
    """Moves arrays in place.

    Args:
        scale: by name, the size of a step at rate 1; broadcasts to the array.
    """

    def __init__(self, scale: Mapping[str, npt.ArrayLike]) -> None:
        self._scale = {name: np.asarray(s, np.float64) for name, s in scale.items()}
        self._first: dict[str, Floats] = {}
        self._second: dict[str, Floats] = {}
        self._steps = 0

    def step(
        self, values: Mapping[str, Floats], gradients: Mapping[str, Floats], rate: float
    ) -> None:
        """One step: values move against their gradients."""
        self._steps += 1
        for name, g in gradients.items():
            m = self._first.setdefault(name, np.zeros_like(g))
            v = self._second.setdefault(name, np.zeros_like(g))
            m += (1 - BETA_1) * (g - m)
            v += (1 - BETA_2) * (g * g - v)
            debias = math.sqrt(1 - BETA_2**self._steps) / (1 - BETA_1**self._steps)
            size = rate * debias * self._scale[name]
            values[name][...] -= size * m / (np.sqrt(v) + EPSILON)


def cosine_rate(step: int, steps: int, warm_up: int = 0) -> float:
    """1 at the start and 0 at the end, along half a cosine; before that a straight rise."""
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    done = (step - warm_up) / max(steps - warm_up, 1)
    return 0.5 * (1 + math.cos(math.pi * done))
