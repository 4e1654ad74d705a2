"""Second moments of what the layers of a model read, as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.norms.batchnorm import batchnorm_after
from onnx_esn.graph.readers import readers
from onnx_esn.numerics.cross_moments import CrossMoments, quadratic
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.layerwise.statistics import LayerStatistics, WalkOptions
from onnx_esn.passes.layerwise.walk import find_plain_layers, walk

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class InputMoments:
    """What one layer reads, and how loud it is.

    Attributes:
        H: covariance (G, d, d) of its inputs, shrunk (`shrunk`).
        half: the same from even images alone, to be judged on odd ones.
        mean: of its inputs (G, d).
        W: its weights (G, m, d).
        gain: |γ|/√(σ² + ε) (G, m) of a BatchNormalization behind it; 1 where there is none.
    """

    H: Singles
    half: Singles
    mean: Floats
    W: Floats
    gain: Floats

    @property
    def energy(self) -> float:
        """Variance of the outputs behind the gain, summed over the filters."""
        return self.error(np.zeros_like(self.W))

    def errors(self, W: Floats) -> Floats:
        """Variance (G, m) that other weights change the outputs by, behind the gain."""
        return np.square(self.gain) * quadratic(W - self.W, self.H.astype(np.float64))

    def error(self, W: Floats) -> float:
        """The same, summed over the filters."""
        return float(self.errors(W).sum())


def shrunk(moments: CrossMoments) -> Singles:
    """Covariance (G, d, d) of the inputs, drawn to its diagonal by the share d/(n + d).

    Fewer samples n than inputs d make a covariance of low rank, which claims that most inputs can
    be had from a few others. In the manner of Ledoit and Wolf (2004), with a share that is ours.
    """
    H = moments.H
    d = H.shape[1]
    share = d / (d + moments.count)
    diagonal = np.einsum("gii->gi", H)[..., None] * np.eye(d)
    return np.asarray((1.0 - share) * H + share * diagonal, np.float32)


def input_moments(
    model: onnx.ModelProto,
    images: CalibrationSet,
    names: Sequence[str],
    options: WalkOptions,
) -> dict[str, InputMoments]:
    """By layer name, for those that can be followed.

    Raises:
        OnnxEsnError: see `walk`.
    """
    constants, users = Constants(model), readers(model)
    found: dict[str, InputMoments] = {}
    norms = {x.name: batchnorm_after(model, users, constants, x) for x in find_plain_layers(model)}

    def record(statistics: LayerStatistics) -> Floats:
        norm = norms[statistics.layer.name]
        shape = statistics.W.shape[:2]
        gain = np.ones(shape) if norm is None else np.abs(norm.gain).reshape(shape)
        moments = statistics.moments
        even = statistics.halves[0] if statistics.halves[0].count else moments
        found[statistics.layer.name] = InputMoments(
            shrunk(moments), shrunk(even), moments.x_mean, statistics.W, gain
        )
        return statistics.W

    walk(model, model, images, record, names, options)
    return found
