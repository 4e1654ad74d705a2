"""`quantize --activations`: integers between the layers, so that integer kernels run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_esn.calibration import Recipe, Source, input_specs, open_set
from onnx_esn.calibration.ranges import Range, tensor_ranges
from onnx_esn.errors import OptionError
from onnx_esn.formats.activations_grid import KINDS, Kind
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.model_file import load_model
from onnx_esn.graph.readers import readers
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.graph.two_sizes import two_sizes
from onnx_esn.graph.unread import drop_unread, reads
from onnx_esn.passes.activations.notes import rounding_notes, warn_of_shared
from onnx_esn.passes.activations.placement import Placement, place
from onnx_esn.passes.activations.source import check_types, raised
from onnx_esn.passes.activations.weights import IntegerLayer, integer_layer
from onnx_esn.passes.activations.writing import absorb, write
from onnx_esn.passes.base import PassResult, Skipped
from onnx_esn.passes.layers.costs import LayerView, not_counted, view_layers
from onnx_esn.passes.layers.patterns import left_out

# What the histograms of one batch may hold.
_HELD_BYTES = 1 << 28


@dataclass(frozen=True)
class Placed:
    """What is to be quantized.

    Attributes:
        model: a copy; its layers no longer read what they absorb, which `write` makes good.
        layers: those with integer weights.
        skipped: the others, and why.
        placement: which tensors are integers.
        facts: what is known of the model.
        read: the tensors that were read before.
    """

    model: onnx.ModelProto
    layers: list[IntegerLayer]
    skipped: tuple[Skipped, ...]
    placement: Placement
    facts: Facts
    read: set[str]


@dataclass(frozen=True)
class QuantizeActivations:
    """Static quantization of activations, for a model whose weights are quantized already, or not.

    Weights on a grid keep it (see `weights`); 8-bit mid-rise filters, whose codes do not
    fit int8, are rounded to the nearest int8, and so are the filters of a layer on no grid.
    A BatchNormalization behind a Conv is folded into it.

    `details` of the result: `activations` and `calibrator` ("known" where all `ranges` were given);
    `ranges` by tensor;
    `integer_layers` and `float_layers` (names); `rounded_filters`, by layer; `folded_norms`.

    Attributes:
        images: calibration set, or what `open_set` makes one of.
        kind: "uint8", "int8", "int16", or "uint2" to "uint7": fewer integers of the type uint8.
        calibrator: "minmax", "entropy", "percentile" or "mse", see `calibration.ranges`; None:
            percentile for 8 bits, which are too few for the extremes, minmax for 16, mse below 8.
        percentile: for the calibrator of that name, in percent.
        exclude: patterns on names of layers and weights: what matches stays float.
        only: such patterns; if any, what matches none of them stays float too.
        recipe: how to read images.
        ranges: (lowest, highest) by tensor where they are known, such as from a plan or learned;
            the images say the others.
        keep_opset: refuse rather than raise the operator set.
        batch_size, threads: for the images.
    """

    images: Source | None
    kind: str = "uint8"
    calibrator: str | None = None
    percentile: float | None = None
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    recipe: str | Path | Recipe | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
    keep_opset: bool = False
    batch_size: int = 64
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = ", ".join(KINDS)
            raise OptionError(f"activations {self.kind!r} are not known; there are: {known}")

    @property
    def _calibrator(self) -> str:
        if self.calibrator is not None:
            return self.calibrator
        kind = KINDS[self.kind]
        return "minmax" if kind.symmetric else "mse" if kind.narrow else "percentile"

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the model with quantized activations.

        Raises:
            OptionError: a pattern matches no layer, or an option is unknown.
            ModelError: the model's activations are not float32, or quantized already.
            ImageSetError, InferenceError: see `calibration.ranges.tensor_ranges`.
        """
        kind = KINDS[self.kind]
        found = self.placed(model)
        result, layers, skipped = found.model, found.layers, list(found.skipped)
        if not layers:
            return PassResult(result, False, tuple(skipped), details=self._details({}, [], skipped))
        ranges = self.calibrated(model, found.placement, found.facts)
        final = write(result, layers, found.placement, ranges, kind)
        drop_unread(result, found.read)
        skipped += rounding_notes(layers, final)
        warn_of_shared(found.placement, result, kind)
        return PassResult(
            result, True, tuple(skipped), details=self._details(ranges, final, skipped)
        )

    def placed(self, model: onnx.ModelProto) -> Placed:
        """Which tensors are to be integers; raises what a call does."""
        kind = KINDS[self.kind]
        check_types(model)
        source = raised(model, kind, self.keep_opset)
        constants = Constants(source)
        facts = two_sizes(source, constants)
        view = view_layers(source, facts[0], constants)
        layers, skipped = self._layers(source, view, facts, kind)
        before = set(reads(source))
        if not layers:
            nothing = Placement({}, frozenset(), frozenset())
            return Placed(source, [], tuple(skipped), nothing, facts[0], before)
        result = absorb(source, layers)
        drop_unread(result, before)
        placement = place(result, Constants(result), facts[0], [x.output for x in layers])
        return Placed(result, layers, tuple(skipped), placement, facts[0], before)

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

    def calibrated(
        self, model: onnx.ModelProto, placement: Placement, facts: Facts
    ) -> dict[str, Range]:
        """The range of each tensor with a scale of its own, in the model as it came."""
        roots = placement.roots
        known = {name: self.ranges[name] for name in roots if name in self.ranges}
        unknown = [name for name in roots if name not in known]
        if not unknown:
            return known
        if self.images is None:
            raise OptionError(
                f"no range is known of '{unknown[0]}' (and {len(unknown) - 1} other tensors): "
                f"give images (--images)"
            )
        data = open_set(self.images, input_specs(model), recipe=self.recipe)
        size, kind = self.batch_size, KINDS[self.kind]
        if self._calibrator != "minmax":
            shapes = [facts.shapes.get(name, ()) for name in unknown]
            sample = 4 * sum(int(np.prod(s, dtype=np.int64)) // 2 for s in shapes)
            size = max(1, min(size, _HELD_BYTES // max(sample, 1)))
        return known | tensor_ranges(
            model,
            unknown,
            data,
            calibrator=self._calibrator,
            percentile=self.percentile,
            steps=2 * kind.high if kind.symmetric else kind.high - kind.low,
            symmetric=kind.symmetric,
            batch_size=size,
            threads=self.threads,
        )

    def _details(
        self, ranges: dict[str, Range], layers: Sequence[IntegerLayer], skipped: Sequence[Skipped]
    ) -> dict[str, Any]:
        return {
            "activations": self.kind,
            "calibrator": "known" if ranges.keys() <= self.ranges.keys() else self._calibrator,
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
