"""Intervals of activations while they are learned: one scale for each tensor.

    x̂ = s·(clip(round(x/s) + z, 0, n) − z)

In QIL's terms the centre is c = s·(n/2 − z) and the distance d = s·n/2. They move together: an
integer kernel knows no dead zone between a value of 0 and the first level (it would need a shift of
the tensor), so that the pruning half of an activation's interval is left out; and the zero point
stays, as padding writes zeros.

Source: Jung et al. (2019), QIL, section 3.1; for gradients Esser et al. (2020), "Learned step size
quantization", equation 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.midrise import Floats


@dataclass
class ActivationScales:
    """Attributes:
    scale: s (T,) of each tensor; changed in place.
    """

    scale: Floats

    def __post_init__(self) -> None:
        self._start = self.scale.copy()

    @property
    def parameters(self) -> dict[str, Floats]:
        """What is learned, by name; the array itself."""
        return {"scale": self.scale}

    @property
    def scales(self) -> dict[str, Floats]:
        """What counts as a large step: the scale that each started with."""
        return {"scale": self._start.copy()}

    def settle(self) -> None:
        """Keep the scales above 0."""
        np.clip(self.scale, self._start / 64, self._start * 64, out=self.scale)
