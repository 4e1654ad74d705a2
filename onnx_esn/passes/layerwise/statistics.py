"""What a walk over the layers gathers of each, and how."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from onnx_esn.calibration import CalibrationSet
from onnx_esn.calibration.staged import MEMORY_LIMIT
from onnx_esn.graph.layers import Layer
from onnx_esn.numerics.cross_moments import CrossMoments
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.layerwise.known import Known

# Samples of a layer, for each weight of a filter.
PER_WEIGHT = 32


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """What a solver gets to see of one layer.

    Attributes:
        layer: the layer.
        W: its weights (G, m, d).
        halves: moments of its inputs and wanted outputs, of even and of odd images.
        reference_variance: of the reference's outputs (G, m), or None without a reference.
    """

    layer: Layer
    W: Floats
    halves: tuple[CrossMoments, CrossMoments]
    reference_variance: Floats | None

    @property
    def moments(self) -> CrossMoments:
        """Of all images; made anew, as it takes as much memory as one of the halves."""
        return self.halves[0].merge(self.halves[1])


@dataclass(frozen=True)
class Solution:
    """New weights of a layer.

    Attributes:
        weights: gives W; those of a large layer may wait in a file.
        shift: (M,) added to the outputs.
        damped: whether the moments of its inputs were singular.
    """

    weights: Callable[[], Floats]
    shift: Floats
    damped: bool = False

    @property
    def W(self) -> Floats:  # noqa: N802
        """(G, m, d)."""
        return self.weights()


Solver = Callable[[LayerStatistics], Floats]


@dataclass(frozen=True)
class WalkOptions:
    """How to gather.

    Attributes:
        seed: draws the positions.
        batch_size: samples in one run.
        per_weight: samples for each weight of a filter.
        memory_limit: bytes of tensors kept between stages.
        threads: threads for one operator.
        streams: whether layers in front of a residual sum mend what the stream brings.
        views: of each image (`CalibrationSet.with_views`); None: several where images are few.
        known: observations of the input model, where they are shared (`observe`).
        spread: sums shards of images elsewhere (`observe`); None: here.
        progress: called with ("reference" or "layers", how much, of how much).
    """

    seed: int = 0
    batch_size: int = 32
    per_weight: int = PER_WEIGHT
    memory_limit: int = MEMORY_LIMIT
    threads: int | None = None
    streams: bool = True
    views: int | None = None
    known: Known | None = None
    spread: Callable[..., Iterator[Any]] | None = None
    progress: Callable[[str, int, int], None] | None = None

    def views_of(self, images: CalibrationSet, apart: Collection[int] = ()) -> CalibrationSet:
        """The images with further views, none of which shows those kept apart beside others."""
        return images.with_views(self.views, seed=self.seed, apart=apart)

    def report(self, what: str) -> Callable[[int, int], None] | None:
        """The progress of one part of the work."""
        show = self.progress
        return None if show is None else lambda done, total: show(what, done, total)
