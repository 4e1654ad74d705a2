"""Compress at every point of a grid; a killed sweep goes on where it stopped."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, Recipe, Source, input_specs, open_set
from onnx_esn.errors import OnnxEsnError, OperationError, OptionError, OutputError
from onnx_esn.evaluation import Comparison
from onnx_esn.graph.model_file import load_model, save_model
from onnx_esn.pipeline import compress as compress_model

from .fingerprint import fingerprint_model, fingerprint_options, fingerprint_set
from .point import Baseline, Point, baseline_of, figures_of, read_point, write_point
from .sweep_result import SweepResult

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

RATIOS = (0.0, 0.25, 0.5, 0.75)
BITS = (2, 3, 4, 5, 6, 8)


class Compressed(Protocol):
    """What a sweep needs of a compression."""

    @property
    def model(self) -> onnx.ModelProto:
        """The compressed model."""

    @property
    def evaluation(self) -> Comparison | None:
        """Its figures beside those of the input model, which is the reference."""


Compress = Callable[..., Compressed]


def sweep(
    model: onnx.ModelProto | str | os.PathLike[str],
    images: Source,
    out_dir: str | os.PathLike[str],
    *,
    ratios: Sequence[float] = RATIOS,
    bits: Sequence[int] = BITS,
    labels: str | Path | npt.NDArray[Any] | None = None,
    recipe: str | Path | Recipe | None = None,
    eval_images: Source | None = None,
    batch_size: int = 64,
    latency: bool = False,
    save_models: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    compress: Compress = compress_model,
) -> SweepResult:
    """Compress a model at each pruning ratio and bit width, and write the figures.

    Each point goes to a file of its own in ``out_dir/points`` as soon as it is finished. A later
    call with the same model, samples and options takes it from there; anything else has another
    key and is computed. ``sweep.csv`` and ``sweep.json`` follow at the end and are byte for byte
    the same however often the sweep was resumed (unless latency is measured).

    A point that fails (a cost that cannot be reached, say) is recorded with the reason, and tried
    again by the next call; the others go on.

    Args:
        model: a path, or a model in memory.
        images, recipe: see `open_set`; the set is decoded once for all points.
        eval_images: a set for the figures; None: a fifth of ``images`` is held out for them.
        labels: of the images that the figures are taken on.
        out_dir: made where it is missing.
        ratios: shares of the prunable filters to remove, 0 ≤ r < 1.
        bits: bits per weight, 1 … 8.
        batch_size: samples at once.
        latency: measure latency as well; its noise makes results differ between runs.
        save_models: also write each model into ``out_dir/models``.
        options: more options for ``compress``, by name.
        progress: called with the points done and their total.
        compress: the function that compresses.

    Raises:
        OptionError: an empty or impossible grid.
        ModelError, ImageSetError, RecipeError, LabelsError: what came in is wrong.
        OutputError: ``out_dir`` cannot be written.
        OperationError: not one point could be computed; the files are written all the same.
    """
    grid = _grid(ratios, bits)
    loaded = load_model(model)
    specs = input_specs(loaded)
    apart = eval_images is not None
    opened = open_set(images, specs, recipe=recipe, labels=None if apart else labels)
    prints = [fingerprint_set(opened)]
    sets: dict[str, Any] = {}
    if eval_images is not None:
        sets["eval_images"] = open_set(eval_images, specs, recipe=recipe, labels=labels)
        prints.append(fingerprint_set(sets["eval_images"]))
    folder = Path(out_dir)
    _make_folders(folder, save_models)
    shared = {**(options or {}), "batch_size": batch_size, "latency": latency}
    hashes = fingerprint_model(loaded), "+".join(prints)
    pruned: tuple[float, Sequence[Any]] | None = None
    points: list[Point] = []
    baseline: Baseline | None = None
    computed = 0
    for done, point in enumerate(grid):
        if progress is not None:
            progress(done, len(grid))
        wanted = {"ratio": point.ratio or None, "bits": point.bits, **shared}
        key = fingerprint_options(*hashes, wanted)
        path = folder / "points" / f"{point.label}_{key[:12]}.json"
        saved = f"models/{path.stem}.onnx" if save_models else None
        found = read_point(path, key)
        if found is None or (saved and not (folder / saved).is_file()):
            computed += 1
            try:
                more = dict(sets)
                if pruned is not None and pruned[0] == point.ratio:
                    more["pruned"] = pruned[1]
                result = compress(loaded, opened, **wanted, **more)
                pruned = point.ratio, getattr(result, "pruning", ())
                found = _figures(result, opened, point, folder, saved)
            except KeyboardInterrupt:
                left = len(grid) - done
                log.warning(
                    "stopped with %d of %d points left; run again to go on", left, done + left
                )
                raise
            except OutputError:
                raise
            except OnnxEsnError as error:
                log.warning("%s: failed: %s", point.label, error)
                points.append(Point(point.ratio, point.bits, None, str(error)))
                continue
            write_point(path, key, *found)
        points.append(replace(found[0], model=saved))
        baseline = baseline or found[1]
    if progress is not None:
        progress(len(grid), len(grid))
    name = loaded.graph.name or "model" if isinstance(model, onnx.ModelProto) else Path(model).name
    swept = SweepResult(name, tuple(points), baseline, computed)
    swept.write(folder)
    if baseline is None:
        raise OperationError(
            f"none of the {len(grid)} points could be computed; the first failed because: "
            f"{points[0].reason}"
        )
    return swept


def _figures(
    result: Compressed, images: CalibrationSet, point: Point, folder: Path, saved: str | None
) -> tuple[Point, Baseline]:
    comparison = result.evaluation
    if comparison is None:
        raise OptionError(
            f"{images.name}: {len(images)} samples are too few to hold some out for the figures of "
            "a sweep; give at least 10"
        )
    if saved is not None:
        save_model(result.model, folder / saved)
    figures = figures_of(comparison.models[-1])
    log.info("%s: ESN'_d %.4g", point.label, figures.esn_prime)
    return Point(point.ratio, point.bits, figures, "", saved), baseline_of(comparison)


def _grid(ratios: Sequence[float], bits: Sequence[int]) -> list[Point]:
    """Every ratio with every bit width, each once, ratios first."""
    if not ratios or not bits:
        raise OptionError("a sweep needs at least one ratio and one bit width")
    for ratio in ratios:
        if not 0 <= ratio < 1:
            raise OptionError(f"ratio {ratio} is not a share of filters to remove: 0 <= ratio < 1")
    for width in bits:
        if width != int(width) or not 1 <= width <= 8:
            raise OptionError(f"bits {width} must be a whole number from 1 to 8")
    return [
        Point(ratio, width, None)
        for ratio in sorted({float(ratio) for ratio in ratios})
        for width in sorted({int(width) for width in bits})
    ]


def _make_folders(folder: Path, save_models: bool) -> None:
    try:
        (folder / "points").mkdir(parents=True, exist_ok=True)
        if save_models:
            (folder / "models").mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror or error})") from error
