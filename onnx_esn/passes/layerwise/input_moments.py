"""Second moments of what the layers of a model read, as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.norms.batchnorm import batchnorm_after
from onnx_esn.graph.readers import readers
from onnx_esn.numerics.cross_moments import CrossMoments, quadratic
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.layerwise.observation import Observation

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class InputMoments:
    """What one layer reads, and how loud it is.

    Attributes:
        H: covariance (G, d, d) of its inputs, shrunk (`shrunk`), without the images held apart.
        half: the same from even images alone, to be judged on odd ones.
        whole: the same of all images; `H` where none is held apart.
        mean: of its inputs (G, d), without those either.
        W: its weights (G, m, d).
        gain: |γ|/√(σ² + ε) (G, m) of a BatchNormalization behind it; 1 where there is none.
    """

    H: Singles
    half: Singles
    whole: Singles
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


def input_moments(model: onnx.ModelProto, seen: Observation) -> dict[str, InputMoments]:
    """By layer name, for those whose inputs were observed."""
    constants, users = Constants(model), readers(model)
    found: dict[str, InputMoments] = {}
    for name, (even, odd, *held) in seen.parts.items():
        layer = seen.layers[name].layer
        rows = layer.as_filters(constants.value(layer.weight)).astype(np.float64)
        W = rows.reshape(layer.groups, layer.filters // layer.groups, -1)
        norm = batchnorm_after(model, users, constants, layer)
        gain = np.ones(W.shape[:2])
        if norm is not None:
            gain = np.abs(norm.gain).reshape(W.shape[:2])
        both = even.merge(odd)
        half = even if even.count else both
        H, every = shrunk(both), both
        for part in held:
            every = every.merge(part)
        whole = shrunk(every) if held else H
        found[name] = InputMoments(H, shrunk(half), whole, both.x_mean, W, gain)
    return found
