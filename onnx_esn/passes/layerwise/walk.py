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

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, input_specs
from onnx_esn.calibration.point_moments import Point
from onnx_esn.calibration.staged import Span, run_in_stages
from onnx_esn.errors import VerificationError
from onnx_esn.graph.constants import Constants
from onnx_esn.numerics.cross_moments import CrossMoments, cross_moments, no_moments
from onnx_esn.outside import any_outside
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layerwise.following import follow, reached_tensors
from onnx_esn.passes.layerwise.observation import observe
from onnx_esn.passes.layerwise.sampling import NOWHERE, Taken
from onnx_esn.passes.layerwise.statistics import (
    LayerStatistics,
    Solution,
    Solver,
    WalkOptions,
)
from onnx_esn.passes.layerwise.targets import find_streams
from onnx_esn.passes.layerwise.twins import find_twins
from onnx_esn.passes.layerwise.uses import NOT_ALL, pooled
from onnx_esn.passes.layerwise.working_copy import Slot, with_own_weights
from onnx_esn.shelf import Shelved

log = logging.getLogger(__name__)

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def walk(
    model: onnx.ModelProto,
    reference: onnx.ModelProto,
    images: CalibrationSet,
    solver: Solver,
    names: Sequence[str],
    options: WalkOptions | None = None,
    taken: Mapping[str, Taken] | None = None,
    together: Sequence[Sequence[str]] = (),
) -> tuple[dict[str, Solution], list[Skipped]]:
    """Solve the layers of these names.

    Args:
        model: in standard form, with the names of the reference.
        reference: the float model.
        images: a set that fits the model.
        solver: makes weights (G, m, d) of a layer's statistics.
        names: the layers; the others stay as they are.
        options: see there.
        taken: the reference's outputs on the same images (`observe`), where they are known. Without
            them, further views of the images are seen as `options` say.
        together: layers of one weight, which get one solution, but each a shift of its own. The
            solver is shown the first, with the moments of all, each about its own mean. They must
            be `parallel`.

    Returns:
        Solutions by layer name, and the layers that could not be followed, with the reason.

    Raises:
        InferenceError, OperationError: a model does not run, or not in stages.
        VerificationError: values that are not finite; names the layer.
    """
    options = options or WalkOptions()
    seen = images if taken is not None else options.views_of(images)
    return _Walk(model, reference, seen, solver, options, together).run(names, taken)


# Of an output's standard deviation: smaller shifts are the rounding of sums, and not worth an Add.
_ROUNDING = 1e-6


class _Walk:
    def __init__(
        self,
        model: onnx.ModelProto,
        reference: onnx.ModelProto,
        images: CalibrationSet,
        solver: Solver,
        options: WalkOptions,
        together: Sequence[Sequence[str]],
    ) -> None:
        self.model, self.reference, self.images = model, reference, images
        self.solver, self.options = solver, options
        self.halves = self.images.halves
        self.constants = Constants(model)
        self.lean = any_outside(model)
        self.sums: dict[str, list[CrossMoments | None]] = {}
        self.streams: dict[str, list[Array]] = {}
        self.solutions: dict[str, Solution] = {}
        self.unlike: set[str] = set()
        self.sharing = {name: tuple(group) for group in together for name in group}
        self.arrived: set[str] = set()

    def run(
        self, names: Sequence[str], taken: Mapping[str, Taken] | None
    ) -> tuple[dict[str, Solution], list[Skipped]]:
        self.reached = reached_tensors(self.model)
        self.layers, self.skipped = follow(self.model, set(names))
        self.twins, alone = find_twins(self.model, self.reference, self.layers)
        self.skipped += alone
        self.layers = {name: g for name, g in self.layers.items() if name in self.twins}
        if taken is None:
            kept = set(self.layers)
            seen = observe(self.reference, self.images, kept, self.options, inputs=False)
            taken = seen.taken
        plain = [g.layer for g in self.layers.values()]
        self.targets = find_streams(self.model, self.constants, plain)
        self.taken = {name: taken[name] for name in self.layers if name in taken}
        for name in [name for name in self.layers if name not in self.taken]:
            self.skipped.append(Skipped(name, "its output does not follow the batch"))
            del self.layers[name]
        for name in list(self.layers):
            if any(other not in self.taken for other in self._group(name)):
                self.skipped.append(Skipped(name, NOT_ALL))
                del self.layers[name]
        if self.layers:
            self._follow()
        return self.solutions, self.skipped

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
            taken = self.taken[name].outputs
            if stream and stream.other in self.reached and stream.total in taken:
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
            together=[
                [self.slots[name].node for name in group]
                for group in dict.fromkeys(self.sharing.values())
                if group[0] in self.layers
            ],
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
        if not geometry.reads(value, span.size, taken.places):
            self.unlike.add(name)  # a product along positions, of channels that are fewer now
            return
        halves = self.halves[span.first : span.first + span.count]
        for half in (0, 1):
            chosen = [s for s, own in zip(samples, halves, strict=True) if own == half]
            if not chosen:
                continue
            at = [
                taken.at[s] if own == half else NOWHERE
                for s, own in zip(samples, halves, strict=True)
            ]
            x = geometry.inputs_at(value, span.size, taken.places, at)
            y = np.concatenate([self._wanted(name, s) for s in chosen])
            sums = self.sums.setdefault(name, [None, None])
            y = _grouped(y, geometry.layer.groups)
            sums[half] = cross_moments(x, y, sums[half])

    def _wanted(self, name: str, sample: int) -> Array:
        """Wanted outputs (n, M) of one sample."""
        outputs, twin = self.taken[name].outputs, self.twins[name]
        y = twin.outputs(next(iter(outputs.values()))[sample])
        stream = self.streams.get(name, [])
        if sample >= len(stream) or stream[sample].shape != y.shape:
            return y
        target = self.targets[name]
        return target.wanted(y, outputs[target.total][sample][:, twin.kept], stream[sample])

    def _finish(self, point: Point) -> Mapping[str, Array]:
        name, is_stream = self.points[id(point)]
        if is_stream:
            return {}
        group = self._group(name)
        self.arrived.add(name)
        if not self.arrived.issuperset(group):
            return {}
        if self.unlike.isdisjoint(group):
            return self._solved(group)
        for member in group:
            reason = "the reference has it at other positions" if member in self.unlike else NOT_ALL
            self.skipped.append(Skipped(member, reason))
            del self.taken[member]
            self.sums.pop(member, None)
            self.streams.pop(member, None)
        return {}

    def _group(self, name: str) -> tuple[str, ...]:
        """The layers that share a layer's weight, itself among them."""
        return self.sharing.get(name, (name,))

    def _solved(self, group: Sequence[str]) -> Mapping[str, Array]:
        """One solution for layers of one weight, and where it goes."""
        layer, slot = self.layers[group[0]].layer, self.slots[group[0]]
        G = layer.groups
        rows = layer.as_filters(slot.W).astype(np.float64)
        W = rows.reshape(G, layer.filters // G, -1)
        none = no_moments(*W.shape)
        uses, variances = [], []
        for name in group:
            outputs = next(iter(self.taken.pop(name).outputs.values()))
            y = self.twins[name].outputs(np.concatenate(outputs))
            variances.append(y.var(axis=0, dtype=np.float64).reshape(G, -1))
            a, b = self.sums.pop(name)
            uses.append((a or none, b or none))
            self.streams.pop(name, None)
        halves, variance = (uses[0], variances[0]) if len(group) == 1 else pooled(uses, variances)
        statistics = LayerStatistics(layer, W, halves, variance)
        new = self.solver(statistics)
        singular = statistics.moments.singular
        if singular:
            log.info(
                "%s: the moments of its %d inputs are singular on %d positions; damped",
                layer.name, W.shape[2], statistics.moments.count,
            )  # fmt: skip
        solved = Shelved(new, outside=self.lean)
        spread = np.sqrt(variance).reshape(-1)
        values: dict[str, Array] = {}
        for name, (a, b) in zip(group, uses, strict=True):
            moments, slot = a.merge(b), self.slots[name]
            shift = moments.y_mean - np.einsum("gmd,gd->gm", new, moments.x_mean)
            shift = shift.reshape(-1) - slot.b
            shift[np.abs(shift) <= _ROUNDING * spread] = 0.0
            self.solutions[name] = Solution(solved, shift, singular)
            values |= slot.values(self.layers[name].layer, new.reshape(rows.shape), shift)
        return values


def _grouped(y: Array, groups: int) -> Array:
    """(n, M) to (G, n, m)."""
    grouped: Array = y.reshape(len(y), groups, -1).transpose(1, 0, 2)
    return grouped
