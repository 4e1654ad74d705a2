"""New weights of a layer: refitted, or rounded with error compensation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.compensation import FACTORS, SWEEPS, compensated_codes, inputs
from onnx_esn.numerics.cross_moments import RIDGES, choose_ridge, quadratic, refit
from onnx_esn.numerics.damping import choose_damping
from onnx_esn.numerics.esn import Integers
from onnx_esn.numerics.match import match_ratio
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.passes.layerwise.statistics import LayerStatistics

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Refit:
    """Least squares towards the wanted outputs, then the reference's variance.

    Attributes:
        ridges: candidates for how strongly the weights hold on to what they are.
    """

    ridges: tuple[float, ...] = RIDGES

    def __call__(self, statistics: LayerStatistics) -> Floats:
        """Weights (G, m, d)."""
        W = self.target(statistics)
        return W * matched(statistics, W)[..., None]

    def target(self, statistics: LayerStatistics) -> Floats:
        """The weights of least squared error."""
        return refit(statistics.moments, statistics.W, self.ridge(statistics))

    def ridge(self, statistics: LayerStatistics) -> float:
        """The candidate that fits best."""
        return choose_ridge(statistics.halves, statistics.W, self.ridges)


@dataclass
class Round:
    """Codes for the refitted weights, which compensate each other's errors.

    Attributes:
        bits: by layer name, bits (M,) of its filters.
        refit: makes the weights to be rounded.
        quantizer, factors, sweeps: see `compensated_codes`. A layer without bits keeps its
            weights: only its bias is chosen.
        halves, step: what was chosen, by layer name: 2·W_int (M, K), and Δ (M,).
    """

    bits: dict[str, Integers]
    refit: Refit
    quantizer: Quantizer = MID_RISE
    factors: tuple[float, ...] = FACTORS
    sweeps: int = SWEEPS

    def __post_init__(self) -> None:
        self.halves: dict[str, npt.NDArray[np.int16]] = {}
        self.step: dict[str, Floats] = {}

    def codes(self, name: str) -> Floats:
        """The codes W_int (M, K) of a layer."""
        return self.halves[name] / 2.0

    def __call__(self, statistics: LayerStatistics) -> Floats:
        """Weights (G, m, d) on the grid."""
        name = statistics.layer.name
        if name not in self.bits:
            return statistics.W
        G, m, d = statistics.W.shape
        bits = self.bits[name].reshape(G, m)
        ridge = self.refit.ridge(statistics)
        damping = choose_damping(statistics.halves, statistics.W, ridge, bits, self.quantizer)
        moments = statistics.moments
        target = refit(moments, statistics.W, ridge)
        x = inputs(moments.H, damping)
        codes, step = compensated_codes(
            target, x, bits, quantizer=self.quantizer, factors=self.factors, sweeps=self.sweeps
        )
        step = step * matched(statistics, codes * step[..., None])
        self.halves[name] = (2.0 * codes).astype(np.int16).reshape(-1, d)
        self.step[name] = step.reshape(-1)
        return codes * step[..., None]


def matched(statistics: LayerStatistics, W: Floats) -> Floats:
    """Factors (G, m) that give outputs of weights (G, m, d) the reference's variance."""
    if statistics.reference_variance is None:
        return np.ones(W.shape[:2])
    std = np.sqrt(np.maximum(quadratic(W, statistics.moments.H), 0.0))
    wanted = np.sqrt(statistics.reference_variance)
    return match_ratio(wanted.reshape(-1), std.reshape(-1)).reshape(W.shape[:2])
