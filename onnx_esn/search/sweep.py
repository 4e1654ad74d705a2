"""Compress for each budget in several ways; a killed sweep goes on where it stopped."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from onnx_esn.calibration import Recipe, Source, input_specs, open_set
from onnx_esn.errors import BudgetError, OperationError, OptionError, OutputError
from onnx_esn.graph.model_file import SINGLE_FILE_LIMIT, initializer_bytes, load_model
from onnx_esn.graph.model_source import ModelSource, plain_source
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.numerics.quantizers import QUANTIZERS
from onnx_esn.passes.inspecting.esn_metrics import measure_esn
from onnx_esn.passes.quantizing.requantization import open_weights
from onnx_esn.pipeline import compress as compress_model
from onnx_esn.targets import claimed, clean_folder
from onnx_esn.verbs import named_shapes

from .computing import Compress, Computer
from .fingerprint import fingerprint_model, fingerprint_set
from .methods import BITS, DEFAULT, RATIOS, TARGETS, check_methods, grid_jobs, method_jobs
from .point import Point
from .runner import Here, Place, Runner
from .sweep_result import SweepResult

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


def sweep(
    model: ModelSource,
    images: Source,
    out_dir: str | os.PathLike[str],
    *,
    targets: Sequence[float] | None = None,
    methods: Sequence[str] | None = None,
    effort: str = "balanced",
    ratios: Sequence[float] | None = None,
    bits: Sequence[int] | None = None,
    labels: str | Path | npt.NDArray[Any] | None = None,
    recipe: str | Path | Recipe | None = None,
    eval_images: Source | None = None,
    batch_size: int = 64,
    latency: bool = False,
    save_models: bool = False,
    options: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
    compress: Compress = compress_model,
) -> SweepResult:
    """Compress a model to each target in each way, and write the figures side by side.

    A target is a cost in mean bits per MAC of the input model. The methods:

    - ``nearest``: bits by plain rounding, as simple tools do it; what the others are held against;
    - ``quantize-only``: bits;
    - ``prune-only``: 8 bits everywhere, and channels go until the cost is met;
    - ``prune-then-quantize``: channels go until the share sqrt(target / 8) of the MACs is left, and
      bits take what remains of the cost;
    - ``joint``: widths and bits decided together;
    - ``aciq``: analytical clipping, the published baseline; only where it is asked for. The cost
      factors of the others then refer to it.

    With ``ratios`` or ``bits`` it is a grid instead: every pruning ratio with every bit width.

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
        targets: mean bits per MAC of the input model, above 0; None: `TARGETS`.
        methods: keys of `METHODS`; None: all but ``aciq``.
        effort: how hard each method tries, see ``compress``; nothing to a grid.
        ratios: shares of the prunable filters to remove, 0 ≤ r < 1; None: `RATIOS` if ``bits`` are
            given.
        bits: bits per weight, 1 … 8; None: `BITS` if ``ratios`` are given.
        batch_size: samples at once.
        latency: measure latency as well; its noise makes results differ between runs.
        save_models: also write each model into ``out_dir/models``.
        options: more options for ``compress``, by name.
        scheduler: address of a Dask scheduler whose workers compute the points, such as
            ``tcp://10.0.0.1:8786``; None: this process does. The results have the same bytes.
        progress: called with the points done and their total.
        compress: the function that compresses.

    Raises:
        OptionError: nothing to sweep, something impossible, or both a grid and methods.
        BudgetError: the cost of the model is not known, so no target speaks of it.
        ModelError, ImageSetError, RecipeError, LabelsError: what came in is wrong.
        OutputError: ``out_dir`` cannot be written, or another run is writing it.
        OperationError: not one point could be computed; the files are written all the same. Or
            the scheduler cannot be reached, or its workers cannot give the same bytes.
    """
    if scheduler is not None and latency:
        raise OptionError("latency speaks of one machine: leave it out with a scheduler")
    if scheduler is not None:
        from onnx_esn.cluster.connection import knock

        knock(scheduler)  # before the images are read, which may take long
    grid = ratios is not None or bits is not None
    more = dict(options or {})
    if grid:
        if targets is not None or methods is not None:
            raise OptionError("sweep either methods and targets, or a grid of ratios and bits")
        jobs = grid_jobs(RATIOS if ratios is None else ratios, BITS if bits is None else bits)
    else:
        targets = TARGETS if targets is None else targets
        methods = DEFAULT if methods is None else methods
        check_methods(methods, targets, more)
    model = plain_source(model)
    # Workers have no access to the file.
    loaded = load_model(model, outside=scheduler is None)
    if scheduler is not None and initializer_bytes(loaded) >= SINGLE_FILE_LIMIT:
        raise OptionError("a model above 2 GB cannot be sent to workers: leave the scheduler out")
    sizes = named_shapes(loaded, more.get("input_shape"))
    before = measure_esn(loaded, input_shape=sizes)
    if not grid:
        if not before.macs:
            raise BudgetError("the model has no layer whose cost is known, so no budget can be met")
        assert targets is not None
        assert methods is not None
        jobs = method_jobs(methods, targets, before.macs, effort)
    _check_options(loaded, more, bits if grid else None)
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
    runner = Runner(
        (fingerprint_model(loaded), "+".join(prints)),
        {**more, "batch_size": batch_size, "latency": latency},
        folder,
        save_models,
    )
    computer = Computer(loaded, opened, sets, before, compress)
    place: Place = Here(computer)
    if scheduler is not None:
        from .elsewhere import Elsewhere

        place = Elsewhere(scheduler, computer, [runner.hashes[0], *prints], save_models)
    points: list[Point] = [job.point for job in jobs]
    done = 0
    if progress is not None:
        progress(0, len(jobs))
    try:
        with claimed(folder):
            for part in ("points", "models"):  # a run that was killed may have left something there
                clean_folder(folder / part)
            for number, point in runner.run(jobs, place):
                points[number] = point
                done += 1
                if progress is not None:
                    progress(done, len(jobs))
    except KeyboardInterrupt:
        left = len(jobs) - done
        log.warning("stopped with %d of %d points left; run again to go on", left, len(jobs))
        raise
    name = loaded.graph.name or "model" if isinstance(model, onnx.ModelProto) else Path(model).name
    swept = SweepResult(name, tuple(points), runner.baseline, runner.computed)
    swept.write(folder)
    if runner.baseline is None:
        raise OperationError(
            f"none of the {len(jobs)} points could be computed; the first failed because: "
            f"{points[0].reason}"
        )
    return swept


def _check_options(
    model: onnx.ModelProto, options: Mapping[str, Any], bits: Sequence[int] | None
) -> None:
    """Refuse what would make every point fail; raises `OptionError`."""
    chosen = {k: options[k] for k in ("only", "exclude") if options.get(k)}
    requantize = bool(options.get("requantize", False))
    open_weights(standard_form(model), requantize=requantize, **chosen)
    quantizer = QUANTIZERS.get(options.get("quantizer", "mid-rise"))
    if quantizer is not None and bits is not None and min(bits) < quantizer.least_bits:
        raise OptionError(
            f"--bits {min(bits)} leaves the {quantizer.name} quantizer nothing but zeros; give "
            f"{quantizer.least_bits} or more"
        )


def _make_folders(folder: Path, save_models: bool) -> None:
    try:
        (folder / "points").mkdir(parents=True, exist_ok=True)
        if save_models:
            (folder / "models").mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror or error})") from error
