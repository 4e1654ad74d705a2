"""Which images `compress` works on, and which it is judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, Recipe, Source
from onnx_esn.verbs import open_images

# Share of the images that `compress` keeps for its closing figures.
HELD_OUT = 0.2
LEAST_TO_SPLIT = 10


def image_sets(
    model: onnx.ModelProto,
    images: Source,
    eval_images: Source | None,
    recipe: str | Path | Recipe | None,
    labels: str | Path | npt.NDArray[Any] | None,
) -> tuple[CalibrationSet, CalibrationSet | None]:
    """The set to calibrate on, and the one for the closing figures."""
    if eval_images is not None:
        held = open_images(model, eval_images, recipe, labels)
        dataset = open_images(model, images, recipe)
        assert dataset is not None
        return dataset, held
    dataset = open_images(model, images, recipe, labels)
    assert dataset is not None
    return dataset.split(HELD_OUT) if len(dataset) >= LEAST_TO_SPLIT else (dataset, None)
