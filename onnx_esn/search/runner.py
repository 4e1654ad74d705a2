"""One job of a sweep: taken from its file, or computed and written there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OnnxEsnError, OptionError, OutputError
from onnx_esn.evaluation import Comparison
from onnx_esn.graph.model_file import save_model
from onnx_esn.passes.esn_metrics import EsnMetrics, measure_esn

from .fingerprint import fingerprint_options
from .methods import Job, Options
from .point import Baseline, Point, baseline_of, figures_of, read_point, write_point

log = logging.getLogger(__name__)


class Compressed(Protocol):
    """What a sweep needs of a compression."""

    @property
    def model(self) -> onnx.ModelProto:
        """The compressed model."""

    @property
    def evaluation(self) -> Comparison | None:
        """Its figures beside those of the input model, which is the reference."""


Compress = Callable[..., Compressed]


@dataclass
class Runner:
    """What all points of a sweep share.

    Attributes:
        model: the input model.
        images: the calibration set.
        sets: other sets, by the option of `compress` that they are.
        hashes: of the model and of the samples.
        options: that every point has, for `compress`.
        before: costs of the input model.
        folder: of the sweep.
        save_models: whether compressed models are written.
        compress: the function that compresses.
        baseline: the input model's figures, once a point is there.
        computed: points that were not taken from a file.
    """

    model: onnx.ModelProto
    images: CalibrationSet
    sets: Options
    hashes: tuple[str, str]
    options: Options
    before: EsnMetrics
    folder: Path
    save_models: bool
    compress: Compress
    baseline: Baseline | None = None
    computed: int = 0
    _pruned: tuple[float | None, Sequence[Any]] = field(default=(None, ()))

    def run(self, job: Job) -> Point:
        """Return the finished or failed point.

        Raises:
            OutputError: a file cannot be written.
        """
        wanted = {**self.options, **job.options}
        key = fingerprint_options(*self.hashes, wanted)
        path = self.folder / "points" / f"{job.point.label}_{key[:12]}.json"
        saved = f"models/{path.stem}.onnx" if self.save_models else None
        found = read_point(path, key)
        if found is None or (saved and not (self.folder / saved).is_file()):
            self.computed += 1
            try:
                found = self._compute(job.point, wanted, saved)
            except OutputError:
                raise
            except OnnxEsnError as error:
                log.warning("%s: failed: %s", job.point.label, error)
                return replace(job.point, reason=str(error))
            write_point(path, key, *found)
        self.baseline = self.baseline or found[1]
        return replace(found[0], model=saved)

    def _compute(self, point: Point, wanted: Options, saved: str | None) -> tuple[Point, Baseline]:
        more = dict(self.sets)
        # The bit widths of a grid share a pruning.
        if point.ratio is not None and self._pruned[0] == point.ratio:
            more["pruned"] = self._pruned[1]
        result = self.compress(self.model, self.images, **wanted, **more)
        self._pruned = point.ratio, getattr(result, "pruning", ())
        comparison = result.evaluation
        if comparison is None:
            raise OptionError(
                f"{self.images.name}: {len(self.images)} samples are too few to hold some out for "
                "the figures of a sweep; give at least 10"
            )
        if saved is not None:
            save_model(result.model, self.folder / saved)
        esn = measure_esn(result.model, input_shape=wanted.get("input_shape"))
        figures = figures_of(comparison.models[-1], esn, self.before.filters)
        log.info("%s: ESN'_d %.4g", point.label, figures.esn_prime)
        return replace(point, figures=figures, model=saved), baseline_of(comparison, self.before)
