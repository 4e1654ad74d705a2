"""The statistics of a weight that several layers use, as of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from onnx_esn.numerics.cross_moments import CrossMoments
from onnx_esn.numerics.midrise import Floats

# What keeps one use of a weight from being followed keeps the others too.
NOT_ALL = "not all layers that share its weight can be followed"

Halves = tuple[CrossMoments, CrossMoments]


def added(uses: Sequence[CrossMoments]) -> CrossMoments:
    """Moments of the samples of all uses, each about the mean of its own use.

    For what changes in the mean goes into the bias of each use.
    """
    centred = [
        replace(use, x_mean=np.zeros_like(use.x_mean), y_mean=np.zeros_like(use.y_mean))
        for use in uses
    ]
    return reduce(CrossMoments.merge, centred)


def pooled(uses: Sequence[Halves], variances: Sequence[Floats]) -> tuple[Halves, Floats]:
    """Moments of even and of odd images over all uses, and the variance of the wanted outputs.

    Args:
        uses: the halves of each.
        variances: of the wanted outputs (G, m) of each.
    """
    count = [a.count + b.count for a, b in uses]
    weights = count if any(count) else [1] * len(count)
    halves = added([a for a, _ in uses]), added([b for _, b in uses])
    return halves, np.average(np.stack(variances), axis=0, weights=weights)
