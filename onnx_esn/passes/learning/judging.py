"""Keep what was learned only if it agrees better with the reference on images held out."""

from __future__ import annotations

from typing import Any

import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.passes.correcting.output_divergence import output_divergences
from onnx_esn.passes.correcting.recalibration import LEAST_FOR_GATE


def split_to_judge(
    images: CalibrationSet, share: float
) -> tuple[CalibrationSet, CalibrationSet | None]:
    """The images to learn from, and those that judge; None where there are too few for both."""
    return images.split(share) if len(images) >= LEAST_FOR_GATE else (images, None)


def judge(
    reference: onnx.ModelProto,
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    held: CalibrationSet | None,
    threads: int | None,
) -> dict[str, Any]:
    """`accepted`, `held_out_images`, `divergence_before` and `divergence_after`.

    The divergences are None where there are no images to judge on.
    """
    first = last = None
    if held is not None:
        first, last = output_divergences(reference, [before, after], held, threads=threads)
    return {
        "accepted": first is None or last is None or last < first,
        "held_out_images": 0 if held is None else len(held),
        "divergence_before": first,
        "divergence_after": last,
    }
