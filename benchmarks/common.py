"""What the benchmark scripts share: options, sets, accuracy or agreement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import onnx

from onnx_esn.calibration import CalibrationSet, input_specs, open_set
from onnx_esn.evaluation import evaluate


def sets(function: Callable[..., Any]) -> Callable[..., Any]:
    """MODEL, --images, --eval-images, --recipe, --labels."""
    path = click.Path(path_type=Path, exists=True)
    for option in (
        click.option("--labels", type=path, help="CSV with file,label for --eval-images."),
        click.option("--recipe", type=path),
        click.option("--eval-images", required=True, type=path),
        click.option("--images", required=True, type=path),
        click.argument("model", type=path),
    ):
        function = option(function)
    return function


def load(
    model: Path, images: Path, eval_images: Path, recipe: Path | None, labels: Path | None
) -> tuple[onnx.ModelProto, CalibrationSet, CalibrationSet]:
    """The model, the calibration set and the evaluation set."""
    loaded = onnx.load(model)
    specs = input_specs(loaded)
    return (
        loaded,
        open_set(images, specs, recipe=recipe),
        open_set(eval_images, specs, recipe=recipe, labels=labels),
    )


def quality(
    reference: onnx.ModelProto, model: onnx.ModelProto, images: CalibrationSet
) -> tuple[str, float]:
    """Accuracy where labels are known, else top-1 agreement, else SNR in dB; in percent or dB."""
    after = evaluate([reference, model], images, latency=False).models[1]
    if after.accuracy is not None:
        return "accuracy %", 100 * after.accuracy.value
    assert after.agreement is not None
    if after.agreement.top1 is not None:
        return "top-1 agreement %", 100 * after.agreement.top1
    return "SNR dB", after.agreement.snr_db
