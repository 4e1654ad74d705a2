"""One point of a sweep computed, in whatever process: nothing is written here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OptionError
from onnx_esn.evaluation import Comparison
from onnx_esn.passes.inspecting.esn_metrics import EsnMetrics, measure_esn
from onnx_esn.passes.layerwise.known import Known
from onnx_esn.verbs import named_shapes

from .methods import Options
from .point import Baseline, Point, baseline_of, figures_of


class Compressed(Protocol):
    """What a sweep needs of a compression."""

    @property
    def model(self) -> onnx.ModelProto:
        """The compressed model."""

    @property
    def evaluation(self) -> Comparison | None:
        """Its figures beside those of the input model, which is the reference."""


Compress = Callable[..., Compressed]


@dataclass(frozen=True)
class Computed:
    """A point with its figures, what they are held against, and the compressed model if wanted."""

    point: Point
    baseline: Baseline
    model: onnx.ModelProto | None


@dataclass
class Computer:
    """What all points of a sweep are computed from.

    Attributes:
        model: the input model.
        images: the calibration set.
        sets: other sets, by the option of `compress` that they are.
        before: costs of the input model.
        compress: the function that compresses.
        known: what it may share between points, where it takes that.
    """

    model: onnx.ModelProto
    images: CalibrationSet
    sets: Mapping[str, CalibrationSet]
    before: EsnMetrics
    compress: Compress
    known: Known = field(default_factory=Known)
    _pruned: tuple[float | None, Sequence[Any]] = field(default=(None, ()))

    @property
    def shares(self) -> bool:
        """Whether the function takes what points share."""
        return "known" in inspect.signature(self.compress).parameters

    def __call__(self, point: Point, options: Options) -> Computed:
        """Compress as `options` say.

        Raises:
            OnnxEsnError: see `compress`.
        """
        more: Options = dict(self.sets)
        if self.shares:
            more["known"] = self.known
        # The bit widths of a grid share a pruning.
        ratio, pruned = self._pruned
        if point.ratio is not None and ratio == point.ratio:
            more["pruned"] = pruned
        result = self.compress(self.model, self.images, **options, **more)
        self._pruned = point.ratio, getattr(result, "pruning", ())
        comparison = result.evaluation
        if comparison is None:
            raise OptionError(
                f"{self.images.name}: {len(self.images)} samples are too few to hold some out for "
                "the figures of a sweep; give at least 10"
            )
        sizes = named_shapes(result.model, options.get("input_shape"))
        esn = measure_esn(result.model, input_shape=sizes)
        figures = figures_of(comparison.models[-1], esn, self.before.filters)
        baseline = baseline_of(comparison, self.before)
        return Computed(replace(point, figures=figures), baseline, result.model)
