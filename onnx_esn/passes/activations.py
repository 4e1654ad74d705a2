"""`quantize --activations`: integers between the layers, so that integer kernels run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_esn.calibration import CalibrationSet, Recipe, Source, input_specs, open_set
from onnx_esn.calibration.ranges import Range, tensor_ranges
from onnx_esn.errors import OptionError
from onnx_esn.formats.activations_grid import KINDS, Kind
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.model_file import load_model
from onnx_esn.graph.readers import readers
from onnx_esn.graph.shapes import Facts
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.graph.two_sizes import two_sizes
from onnx_esn.graph.unread import drop_unread, reads
from onnx_esn.passes.activation_notes import rounding_notes, warn_of_shared
from onnx_esn.passes.activation_placement import Placement, place
from onnx_esn.passes.activation_source import check_types, raised
from onnx_esn.passes.activation_weights import IntegerLayer, integer_layer
from onnx_esn.passes.activation_writing import absorb, write
from onnx_esn.passes.base import PassResult, Skipped
from onnx_esn.passes.layer_costs import LayerView, not_counted, view_layers
from onnx_esn.passes.layer_patterns import left_out

# What the histograms of one batch may hold.
_HELD_BYTES = 1 << 28


@dataclass(frozen=True)
class QuantizeActivations:
    """Static quantization of activations, for a model whose weights are quantized already, or not.

    Weights on a grid keep it (see `activation_weights`); 8-bit mid-rise filters, whose codes do not
    fit int8, are rounded to the nearest int8, and so are the filters of a layer on no grid.
    A BatchNormalization behind a Conv is folded into it.

    `details` of the result: `activations` and `calibrator`; `ranges` by tensor;
    `integer_layers` and `float_layers` (names); `rounded_filters`, by layer; `folded_norms`.

    Attributes:
        images: calibration set, or what `open_set` makes one of.
        kind: "uint8", "int8" or "int16".
        calibrator: "minmax", "entropy" or "percentile", see `calibration.ranges`; None: percentile
            for 8 bits, which are too few for the extremes, minmax for 16.
        percentile: for the calibrator of that name, in percent.
        exclude: patterns on names of layers and weights: what matches stays float.
        only: such patterns; if any, what matches none of them stays float too.
        recipe: how to read images.
        keep_opset: refuse rather than raise the operator set.
        batch_size, threads: for the images.
    """

    images: Source
    kind: str = "uint8"
    calibrator: str | None = None
    percentile: float | None = None
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    recipe: str | Path | Recipe | None = None
    keep_opset: bool = False
    batch_size: int = 64
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = ", ".join(KINDS)
            raise OptionError(f"activations {self.kind!r} are not known; there are: {known}")

    @property
    def _calibrator(self) -> str:
        return self.calibrator or ("minmax" if self.kind == "int16" else "percentile")

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the model with quantized activations.

        Raises:
            OptionError: a pattern matches no layer, or an option is unknown.
            ModelError: the model's activations are not float32, or quantized already.
            ImageSetError, InferenceError: see `calibration.ranges.tensor_ranges`.
        """
        kind = KINDS[self.kind]
        check_types(model)
        dataset = open_set(self.images, input_specs(model), recipe=self.recipe)
        source = raised(model, kind, self.keep_opset)
        constants = Constants(source)
        facts = two_sizes(source, constants)
        view = view_layers(source, facts[0], constants)
        layers, skipped = self._layers(source, view, facts, kind)
        if not layers:
            return PassResult(model, False, tuple(skipped), details=self._details({}, [], skipped))
        before = set(reads(source))
        result = absorb(source, layers)
        drop_unread(result, before)
        placement = place(result, Constants(result), facts[0], [x.output for x in layers])
        ranges = self._ranges(model, placement, dataset, facts[0])
        final = write(result, layers, placement, ranges, kind)
        drop_unread(result, before)
        skipped += rounding_notes(layers, final)
        warn_of_shared(placement, result, kind)
        return PassResult(
            result, True, tuple(skipped), details=self._details(ranges, final, skipped)
        )

    def _layers(
        self, model: onnx.ModelProto, view: LayerView, facts: Sequence[Facts], kind: Kind
    ) -> tuple[list[IntegerLayer], list[Skipped]]:
        excluded = left_out(view.layers, self.only, self.exclude)
        users = readers(model)
        layers, skipped = [], not_counted(model, view)
        for layer in view.layers:
            found: IntegerLayer | str = excluded.get(layer.name, "")
            if not found:
                found = integer_layer(
                    model, users, view.constants, facts, layer, wide=kind.name == "int16"
                )
            if isinstance(found, str):
                skipped.append(Skipped(layer.name, f"stays float: {found}"))
            else:
                layers.append(found)
        return layers, skipped

    def _ranges(
        self, model: onnx.ModelProto, placement: Placement, data: CalibrationSet, facts: Facts
    ) -> dict[str, Range]:
        size = self.batch_size
        if self._calibrator != "minmax":
            shapes = [facts.shapes.get(name, ()) for name in placement.roots]
            sample = 4 * sum(int(np.prod(s, dtype=np.int64)) // 2 for s in shapes)
            size = max(1, min(size, _HELD_BYTES // max(sample, 1)))
        return tensor_ranges(
            model,
            placement.roots,
            data,
            calibrator=self._calibrator,
            percentile=self.percentile,
            batch_size=size,
            threads=self.threads,
        )

    def _details(
        self, ranges: dict[str, Range], layers: Sequence[IntegerLayer], skipped: Sequence[Skipped]
    ) -> dict[str, Any]:
        return {
            "activations": self.kind,
            "calibrator": self._calibrator,
            "ranges": {name: list(pair) for name, pair in ranges.items()},
            "integer_layers": [x.layer.name for x in layers],
            "float_layers": [s.node for s in skipped if s.reason.startswith("stays float")],
            "rounded_filters": {
                x.layer.name: int(x.rounded.sum()) for x in layers if x.rounded.any()
            },
            "folded_norms": sum(bool(x.absorbed) for x in layers if x.layer.op != "MatMul"),
        }


def quantize_activations(
    model: onnx.ModelProto | str | os.PathLike[str], images: Source, **options: Any
) -> PassResult:
    """Quantize the activations of a model, or of a file; options as of `QuantizeActivations`."""
    return QuantizeActivations(images, **options)(standard_form(load_model(model)))
