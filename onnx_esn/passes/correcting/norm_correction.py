"""Correct the norm points of a model one after another, each on the output of those before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.calibration.point_moments import Point
from onnx_esn.calibration.staged import MEMORY_LIMIT, measure_in_stages
from onnx_esn.graph.norms.points import NormPoint
from onnx_esn.graph.norms.probes import insert_probes
from onnx_esn.graph.norms.rewriting import ModelWriter
from onnx_esn.numerics.moments import Moments
from onnx_esn.passes.base import copied

Array = npt.NDArray[np.generic]
# Moments to running mean and variance, or to scale and shift of a layer's output; (C,) each.
Rule = Callable[[Moments], tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]


@dataclass(frozen=True)
class Correction:
    """What was measured at a norm point, and what its rule made of it.

    Attributes:
        moments: of the point's tensor, with every point before it corrected.
        first: running mean, or scale of the layer's output; (C,) in the model's own type.
        second: running variance, or shift of the layer's output.
    """

    moments: Moments
    first: Array
    second: Array


def measure_corrections(
    model: onnx.ModelProto,
    points: Sequence[NormPoint],
    rules: Mapping[str, Rule],
    images: CalibrationSet,
    *,
    batch_size: int = 64,
    memory_limit: int = MEMORY_LIMIT,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Correction]:
    """The correction of each point, by `NormPoint.output`; the model stays as it is.

    Args:
        model: the model.
        points: what to correct.
        rules: by `NormPoint.output`.
        images: samples that fit the model.
        batch_size, memory_limit, threads, progress: see `measure_in_stages`.

    Raises:
        VerificationError: a statistic or a corrected parameter is not finite; names the layer.
        OperationError: the model does not run, or not in stages.
    """
    working = copied(model)
    ModelWriter(working).own_statistics(points)
    probed, handles = insert_probes(working, points)
    by_node = {handles[point.output].node: point for point in points}
    corrections: dict[str, Correction] = {}

    def update(at: Point, moments: Moments) -> dict[str, Array]:
        point = by_node[at.node]
        handle = handles[point.output]
        with np.errstate(over="ignore"):  # an infinity is reported by who takes it
            first, second = (
                new.astype(old.dtype).reshape(old.shape)
                for new, old in zip(rules[point.output](moments), handle.values, strict=True)
            )
        corrections[point.output] = Correction(moments, first, second)
        return {handle.names[0]: first, handle.names[1]: second}

    measure_in_stages(
        probed,
        [
            Point(point.name, handles[point.output].tensor, point.axis, handles[point.output].node)
            for point in points
        ],
        images,
        update,
        batch_size=batch_size,
        memory_limit=memory_limit,
        threads=threads,
        progress=progress,
    )
    return corrections


def apply_corrections(
    model: onnx.ModelProto, points: Sequence[NormPoint], corrections: Mapping[str, Correction]
) -> onnx.ModelProto:
    """A copy of the model with the points corrected: other parameters, no other nodes.

    Raises:
        VerificationError: a corrected parameter is not finite; names the node.
    """
    writer = ModelWriter(copied(model))
    writer.own_statistics(points)
    for point in points:
        correction = corrections[point.output]
        write = writer.set_statistics if point.layer is None else writer.fold
        write(point, correction.first, correction.second)
    writer.finish()
    return writer.model
