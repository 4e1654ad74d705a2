"""What the passes of one call have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.passes.correcting.recalibration import Recalibrate
from onnx_esn.passes.layerwise.statistics import WalkOptions


@dataclass(frozen=True)
class Setting:
    """Where the passes of one call work.

    Attributes:
        images: the calibration set; None: there is none.
        shapes: sizes of dynamic axes, by input.
        only, exclude: patterns: which layers are touched.
        walk: how the images are run.
    """

    images: CalibrationSet | None = None
    shapes: Mapping[str, Sequence[int]] | None = None
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    walk: WalkOptions = field(default_factory=WalkOptions)

    def recalibrate(self, reference: onnx.ModelProto) -> Recalibrate:
        """The pass that brings means and variances back to those of a model; needs images."""
        assert self.images is not None
        return Recalibrate(
            self.images,
            reference=reference,
            batch_size=self.walk.batch_size,
            threads=self.walk.threads,
            progress=self.walk.progress,
        )
