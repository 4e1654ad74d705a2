"""From measured moments to the parameters that correct a norm point.

- *reestimate* (the paper): the running statistics of a BatchNormalization become the population
  statistics of its input in the compressed model.
- *match*: they become what gives its output the reference's own mean and variance (see
  `numerics.match`), which re-estimation does not: the reference's running statistics came from its
  training images, augmented, and its scale and shift were trained with those.

A layer without BatchNormalization has no γ and β; the standard deviation and the mean of its output
in the reference stand in for |γ| and β, so that both methods give the same there:
scale r = s/ŝ, shift m − r·m̂.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_esn.graph.norms.points import NormPoint
from onnx_esn.numerics.match import batchnorm_for_match, match_ratio
from onnx_esn.numerics.moments import Moments
from onnx_esn.passes.correcting.norm_pairing import Normalization

Floats = npt.NDArray[np.float64]


def pick(moments: Moments, kept: npt.NDArray[np.int64]) -> Moments:
    """The moments of some channels."""
    return Moments(moments.count, moments.mean[kept], moments.m2[kept])


def reestimated_statistics(moments: Moments) -> tuple[Floats, Floats]:
    """Running mean and variance (C,)."""
    return moments.mean, moments.variance


def matched_statistics(
    reference: Moments, norm: Normalization, moments: Moments
) -> tuple[Floats, Floats]:
    """Running mean and variance (C,) that give the output the reference's moments."""
    return batchnorm_for_match(
        moments.mean,
        moments.variance,
        reference.mean,
        reference.variance,
        norm.mean,
        norm.var,
        norm.eps,
    )


def matched_affine(point: NormPoint, reference: Moments, moments: Moments) -> tuple[Floats, Floats]:
    """Scale and shift (C,) that give a layer's output the reference's moments.

    A MatMul without a bias has no place for a shift: it gets the scale only.
    """
    scale = match_ratio(reference.std, moments.std)
    if point.op == "MatMul" and point.shift is None:
        return scale, np.zeros_like(scale)
    return scale, reference.mean - scale * moments.mean
