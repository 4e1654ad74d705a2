"""Solve a model layer by layer, each on the outputs of those solved before it.

For every layer the walk gathers, over positions of all images, the second moments of the inputs
that the model has by now, and their cross moments with the outputs it should have (`targets`). A
*solver* makes new weights of them; what they change in the mean goes into the bias. The next layer
then sees the effect. Each layer runs once, so that a walk costs about one forward pass of the
model, one of the reference, and the linear algebra.

Samples of even and odd images are gathered apart, so that a solver can judge on one half what it
has learned on the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, input_specs
from onnx_esn.calibration.point_moments import Point
from onnx_esn.calibration.staged import Span, run_in_stages
from onnx_esn.errors import VerificationError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.shapes import Facts
from onnx_esn.numerics.cross_moments import CrossMoments, cross_moments, no_moments
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layerwise.geometry import Geometry, find_geometry
from onnx_esn.passes.layerwise.reference import Taken, Wanted, sample_reference
from onnx_esn.passes.layerwise.statistics import (
    LayerStatistics,
    Solution,
    Solver,
    WalkOptions,
)
from onnx_esn.passes.layerwise.targets import Stream, find_streams
from onnx_esn.passes.layerwise.working_copy import Slot, with_own_weights
from onnx_esn.passes.norm_pairing import kept_channels

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Samples of a layer, within which `WalkOptions.per_weight` asks for some.
FEWEST, MOST = 4096, 32768
_BYTES = 1 << 30  # of all layers' wanted outputs together


def walk(
    model: onnx.ModelProto,
    reference: onnx.ModelProto,
    images: CalibrationSet,
    solver: Solver,
    names: Sequence[str],
    options: WalkOptions | None = None,
) -> tuple[dict[str, Solution], list[Skipped]]:
    """Solve the layers of these names.

    Args:
        model: in standard form, with the names of the reference.
        reference: the float model.
        images: a set that fits the model.
        solver: makes weights (G, m, d) of a layer's statistics.
        names: the layers; the others stay as they are.
        options: see there.

    Returns:
        Solutions by layer name, and the layers that could not be followed, with the reason.

    Raises:
        InferenceError, OperationError: a model does not run, or not in stages.
        VerificationError: values that are not finite; names the layer.
    """
    return _Walk(model, reference, images, solver, options or WalkOptions()).run(names)


class _Walk:
    def __init__(
        self,
        model: onnx.ModelProto,
        reference: onnx.ModelProto,
        images: CalibrationSet,
        solver: Solver,
        options: WalkOptions,
    ) -> None:
        self.model, self.reference, self.images = model, reference, images
        self.solver, self.options = solver, options
        self.constants = Constants(model)
        self.records = kept_channels(model), kept_channels(reference)
        self.skipped: list[Skipped] = []
        self.sums: dict[str, list[CrossMoments | None]] = {}
        self.streams: dict[str, list[Array]] = {}
        self.solutions: dict[str, Solution] = {}

    def run(self, names: Sequence[str]) -> tuple[dict[str, Solution], list[Skipped]]:
        self.twins = {x.name: x for x in find_plain_layers(self.reference)}
        self.reached = _reached(self.model)
        self.layers = self._followed(set(names))
        targets = find_streams(self.model, self.constants, [g.layer for g in self.layers.values()])
        self.targets: dict[str, Stream] = targets if self.options.streams else {}
        self.taken = self._sample_reference()
        for name in [name for name in self.layers if name not in self.taken]:
            self.skipped.append(Skipped(name, "its output does not follow the batch"))
            del self.layers[name]
        if self.layers:
            self._follow()
        return self.solutions, self.skipped

    def _followed(self, names: set[str]) -> dict[str, Geometry]:
        """Layers that can be sampled, in graph order, by name."""
        found = {}
        layers = find_plain_layers(self.model)
        for name in sorted(names - {x.name for x in layers}):
            self.skipped.append(Skipped(name, "it is not followed layer by layer"))
        for layer in layers:
            if layer.name not in names:
                continue
            geometry = find_geometry(self.model, layer)
            twin = self.twins.get(layer.name)
            if isinstance(geometry, str):
                self.skipped.append(Skipped(layer.name, geometry))
            elif geometry.data not in self.reached:
                self.skipped.append(Skipped(layer.name, "its input is constant"))
            elif layer.bias and layer.bias not in self.constants:
                self.skipped.append(Skipped(layer.name, "its bias is computed from the data"))
            elif layer.bias and not _of_filters(self.constants.shape(layer.bias), layer.filters):
                self.skipped.append(Skipped(layer.name, "its bias differs between samples"))
            elif twin is None or twin.op != layer.op or twin.kernel != layer.kernel:
                self.skipped.append(Skipped(layer.name, "the reference has no such layer"))
            elif self._kept(layer, twin) is None:
                reason = "which of the reference's filters it has left is not recorded"
                self.skipped.append(Skipped(layer.name, reason))
            else:
                found[layer.name] = geometry
        return found

    def _kept(self, layer: Layer, twin: Layer) -> Indices | None:
        """Positions among the reference's filters of those that the layer has left."""
        every = np.arange(twin.filters)
        mine, theirs = (records.get(layer.name) for records in self.records)
        if mine is None or (theirs is not None and np.array_equal(mine, theirs)):
            return every if layer.filters == twin.filters else None
        # A reference that was pruned itself has lost filters too.
        where = {int(f): i for i, f in enumerate(every if theirs is None else theirs)}
        if len(mine) != layer.filters or any(int(f) not in where for f in mine):
            return None
        return np.asarray([where[int(f)] for f in mine], np.int64)

    def _sample_reference(self) -> dict[str, Taken]:
        made = {name for node in self.reference.graph.node for name in node.output}
        rows = self._rows()
        wanted = {}
        for name in self.layers:
            twin = self.twins[name]
            geometry = find_geometry(self.reference, twin)
            if isinstance(geometry, str):
                continue
            tensors = [twin.output]
            if name in self.targets and self.targets[name].total in made:
                tensors.append(self.targets[name].total)
            kept = self._kept(self.layers[name].layer, twin)
            wanted[name] = Wanted(geometry, rows[name], kept, tuple(tensors))
        if not wanted:
            return {}
        return sample_reference(
            self.reference,
            wanted,
            self.images.for_inputs(input_specs(self.reference)),
            seed=self.options.seed,
            batch_size=self.options.batch_size,
            threads=self.options.threads,
            progress=self.options.report("reference"),
        )

    def _rows(self) -> dict[str, int]:
        """Positions of each sample, by layer."""
        samples = max(len(self.images), 1)
        count = {
            name: min(max(FEWEST, self.options.per_weight * g.features), MOST)
            for name, g in self.layers.items()
        }
        total = sum(4 * n * self.layers[name].layer.filters for name, n in count.items())
        share = min(1.0, _BYTES / max(total, 1))
        return {name: max(1, round(share * n / samples)) for name, n in count.items()}

    def _follow(self) -> None:
        copy, self.slots = with_own_weights(
            self.model, self.constants, [g.layer for g in self.layers.values()]
        )
        self.points: dict[int, tuple[str, bool]] = {}
        points: list[Point] = []
        for name, geometry in self.layers.items():
            slot: Slot = self.slots[name]
            stream = self.targets.get(name)
            asked = [(geometry.data, False)]
            if stream and stream.other in self.reached and len(self.taken[name].outputs) > 1:
                # The stream comes first where both are made in the same stage.
                asked.insert(0, (stream.other, True))
            for tensor, is_stream in asked:
                point = Point(name, tensor, 1, slot.node)
                self.points[id(point)] = name, is_stream
                points.append(point)
        run_in_stages(
            copy,
            points,
            self.images.for_inputs(input_specs(copy)),
            self._visit,
            self._finish,
            batch_size=self.options.batch_size,
            memory_limit=self.options.memory_limit,
            threads=self.options.threads,
            progress=self.options.report("layers"),
        )

    def _visit(self, point: Point, value: Array, span: Span) -> None:
        name, is_stream = self.points[id(point)]
        if is_stream and name not in self.taken:
            return  # it comes after the layer is done: without those left out, stages are fewer
        geometry, taken = self.layers[name], self.taken[name]
        samples = range(span.first, span.first + span.count)
        if is_stream:
            kept = self.streams.setdefault(name, [])
            if geometry.places(value, span.size) == taken.places:
                for i, sample in enumerate(samples):
                    kept.append(geometry.outputs_at(value, span.size, i, taken.at[sample]))
            return
        if not np.isfinite(value).all():
            raise VerificationError(f"{name}: its inputs are not finite (NaN or infinity)")
        for parity in (0, 1):
            chosen = [s for s in samples if s % 2 == parity]
            if not chosen:
                continue
            x = [
                geometry.inputs_at(value, span.size, s - span.first, taken.places, taken.at[s])
                for s in chosen
            ]
            y = np.concatenate([self._wanted(name, s) for s in chosen])
            new = cross_moments(np.concatenate(x, axis=1), _grouped(y, geometry.layer.groups))
            sums = self.sums.setdefault(name, [None, None])
            old = sums[parity]
            sums[parity] = new if old is None else old.merge(new)

    def _wanted(self, name: str, sample: int) -> Array:
        """Wanted outputs (n, M) of one sample."""
        outputs = list(self.taken[name].outputs.values())
        y = outputs[0][sample]
        stream = self.streams.get(name, [])
        if len(outputs) < 2 or sample >= len(stream) or stream[sample].shape != y.shape:
            return y
        return self.targets[name].wanted(y, outputs[1][sample], stream[sample])

    def _finish(self, point: Point) -> Mapping[str, Array]:
        name, is_stream = self.points[id(point)]
        if is_stream:
            return {}
        layer, slot = self.layers[name].layer, self.slots[name]
        G = layer.groups
        rows = layer.as_filters(slot.W).astype(np.float64)
        W = rows.reshape(G, layer.filters // G, -1)
        y = np.concatenate(next(iter(self.taken.pop(name).outputs.values())))
        variance = y.var(axis=0, dtype=np.float64).reshape(G, -1)
        a, b = self.sums.pop(name)
        none = no_moments(*W.shape)
        statistics = LayerStatistics(layer, W, (a or none, b or none), variance)
        new = self.solver(statistics)
        moments = statistics.moments
        shift = moments.y_mean - np.einsum("gmd,gd->gm", new, moments.x_mean)
        shift = shift.reshape(-1) - slot.b
        self.streams.pop(name, None)
        self.solutions[name] = Solution(new, shift)
        return slot.values(layer, new.reshape(rows.shape), shift)


def find_plain_layers(model: onnx.ModelProto) -> list[Layer]:
    """The layers of the main graph, without shapes."""
    return find_layers(model, Constants(model), Facts(sizes={}))


def _of_filters(shape: tuple[int, ...], filters: int) -> bool:
    """Whether a bias has one number for each filter, or one for all."""
    return all(n == 1 for n in shape[:-1]) and shape[-1:] in ((), (1,), (filters,))


def _reached(model: onnx.ModelProto) -> set[str]:
    """Tensors that depend on the model's inputs."""
    stored = {t.name for t in model.graph.initializer}
    found = {i.name for i in model.graph.input if i.name not in stored}
    for node in model.graph.node:
        if any(name in found for name in (*node.input, *captured(node))):
            found.update(name for name in node.output if name)
    return found


def _grouped(y: Array, groups: int) -> Array:
    """(n, M) to (G, n, m)."""
    grouped: Array = y.reshape(len(y), groups, -1).transpose(1, 0, 2)
    return grouped
