"""Refit after spatial pruning: what was given up stays zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_esn.numerics.cross_moments import choose_ridge, refit
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.supported_refit import (
    columns,
    refit_supported,
    shared_support,
    support_work,
)
from onnx_esn.passes.layerwise.solvers import Refit
from onnx_esn.passes.layerwise.statistics import LayerStatistics

Mask = NDArray[np.bool_]

# Multiplications for one layer: a minute or so.
_MOST_WORK = 1e12


@dataclass(frozen=True)
class SupportedRefit(Refit):
    """The refit of `Reconstruct` over the weights that are left.

    Attributes:
        supports: by layer name, (M, d): which weights are left; others have all.
        left: names of layers whose filters' positions differ too much to be solved one by one:
            they only get the reference's variance.
    """

    supports: Mapping[str, Mask] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def target(self, statistics: LayerStatistics) -> Floats:
        """The weights of least squared error, zero where they were given up."""
        name, W = statistics.layer.name, statistics.W
        if name not in self.supports:
            return super().target(statistics)
        support = self.supports[name].reshape(W.shape)
        kept = shared_support(support)
        if kept is not None:
            halves = columns(statistics.halves[0], kept), columns(statistics.halves[1], kept)
            found = np.zeros_like(W)
            ridge = choose_ridge(halves, W[..., kept], self.ridges)
            found[..., kept] = refit(halves[0].merge(halves[1]), W[..., kept], ridge)
            return found
        if support_work(support) > _MOST_WORK:
            self.left.append(name)
            return W
        ridge = choose_ridge(statistics.halves, W, self.ridges)
        return refit_supported(statistics.moments, W, support, ridge)
