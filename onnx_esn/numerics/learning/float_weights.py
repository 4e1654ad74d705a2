"""Float weights while they are learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.midrise import Floats


@dataclass
class FloatWeights:
    """The filters of one layer, W (M, K), learned as they are."""

    W: Floats

    @property
    def parameters(self) -> dict[str, Floats]:
        """What is learned, by name; the array itself."""
        return {"W": self.W}

    @property
    def scales(self) -> dict[str, Floats]:
        """What counts as a large step: the root mean square of each filter."""
        return {"W": np.sqrt(np.square(self.W).mean(axis=1, keepdims=True))}

    def values(self) -> Floats:
        """The weights (M, K)."""
        return self.W

    def gradients(self, G: Floats) -> dict[str, Floats]:
        """Of the parameters, from that of the weights (M, K)."""
        return {"W": G}

    def settle(self) -> None:
        """Nothing to bring back."""
