"""What the benchmark scripts share: options, sets, accuracy or agreement, time and memory."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from onnx_esn.calibration import CalibrationSet, Session, input_specs, iterate_outputs, open_set
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


def random_part(images: CalibrationSet, count: int, seed: int, part: int) -> CalibrationSet:
    """Some images, drawn without replacement; another `part` is another draw."""
    chosen = np.random.default_rng([seed, part]).permutation(len(images))[:count]
    return images.subset(np.sort(chosen))


def forward_seconds(model: onnx.ModelProto, images: CalibrationSet, batch: int = 64) -> float:
    """Wall time of one pass over the images, which a first pass has brought into memory."""
    session = Session(model)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        for _ in iterate_outputs(session, images, batch):
            pass
        seconds = time.perf_counter() - start
    return seconds


def forget_peak() -> None:
    """Start the high-water mark of resident memory anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_bytes() -> int:
    """Most resident memory of this process, since `forget_peak` where the system can."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def machine_class() -> str:
    """Such as `2 x86_64 cores`."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return f"{cores} {platform.machine()} cores"
