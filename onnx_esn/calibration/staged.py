"""Population moments of a model that is corrected while it is measured, layer after layer.

Stage k runs over all batches the part of the model between the points measured in stage k − 1 and
those of stage k. Their moments are then final, as everything before them has its last value; the
correction computed from them acts in stage k + 1. Together the stages run each node once on each
image, so that the whole costs about one forward pass, and the result is that of one batch holding
all images, whatever the batch size.

What a later stage needs is kept for each batch: in memory, then in temporary files, and where the
disk is full too, the batch is computed again from the last cut of it that was kept, in the end
from the images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.moments import Moments

from .calibration_set import CalibrationSet
from .kept_batches import KeptBatches
from .point_moments import Point, point_moments
from .session import Session
from .stage_graph import StageGraph
from .tensor_store import DISK_RESERVE, TensorStore

log = logging.getLogger(__name__)

Values = Mapping[str, npt.NDArray[Any]]
Update = Callable[[Point, Moments], Values]
MEMORY_LIMIT = 2**30


@dataclass(frozen=True)
class Span:
    """Which samples of the set a batch holds.

    Attributes:
        first: index of its first sample.
        count: real samples.
        size: samples in its tensors, padding of a fixed batch included.
    """

    first: int
    count: int
    size: int


def measure_in_stages(
    model: onnx.ModelProto,
    points: Sequence[Point],
    dataset: CalibrationSet,
    update: Update | None = None,
    *,
    batch_size: int = 64,
    memory_limit: int = MEMORY_LIMIT,
    disk_reserve: int | None = DISK_RESERVE,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Moments]:
    """Moments of each point, by `Point.node`, each measured with all points before it corrected.

    Args:
        model: the model; it is not changed.
        points: what to measure; several may share a tensor.
        dataset: samples that fit the model.
        update: called once for each point with its moments; returns new values for initializers
            that only nodes from `Point.node` on read. None measures the model as it is.
        batch_size, memory_limit, disk_reserve, threads, progress: see `run_in_stages`.

    Raises:
        VerificationError: a statistic or a new value is not finite; names the layer.
        OperationError: a point cannot be measured in stages, or the model does not run.
    """
    moments: dict[tuple[str, int], Moments] = {}
    keys = {(p.tensor, p.axis): p for p in points}

    def visit(point: Point, value: npt.NDArray[Any], span: Span) -> None:
        key = point.tensor, point.axis
        if keys[key] is point:  # points that share a tensor share its moments
            new = point_moments(point, value, span.count, span.size)
            moments[key] = moments[key].merge(new) if key in moments else new

    def finish(point: Point) -> Values:
        return update(point, moments[point.tensor, point.axis]) if update else {}

    run_in_stages(
        model,
        points,
        dataset,
        visit,
        finish,
        batch_size=batch_size,
        memory_limit=memory_limit,
        disk_reserve=disk_reserve,
        threads=threads,
        progress=progress,
    )
    return {point.node: moments[point.tensor, point.axis] for point in points}


def run_in_stages(
    model: onnx.ModelProto,
    points: Sequence[Point],
    dataset: CalibrationSet,
    visit: Callable[[Point, npt.NDArray[Any], Span], None],
    finish: Callable[[Point], Values],
    *,
    together: Sequence[Sequence[str]] = (),
    batch_size: int = 64,
    memory_limit: int = MEMORY_LIMIT,
    disk_reserve: int | None = DISK_RESERVE,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Show the tensor of each point, batch by batch, with everything before it as it was changed.

    Args:
        model: the model; it is not changed.
        points: the tensors, and where a change acts.
        dataset: samples that fit the model.
        visit: called with each point, its tensor, and which samples that holds.
        finish: called for each point once all batches were visited; returns new values for
            initializers that only nodes from `Point.node` on read.
        together: sets of `Point.node` whose points are shown and finished in one stage.
        batch_size: most samples in one run (fewer where they are large).
        memory_limit: bytes of tensors kept in memory between stages.
        disk_reserve: bytes left free on the disk of the temporary folder; None never writes.
        threads: threads for one operator.
        progress: called with (stages done, stages).

    Raises:
        VerificationError: a new value is not finite; names the layer.
        OperationError: a point cannot be measured in stages, or the model does not run.
    """
    graph = StageGraph(model, points, [spec.name for spec in dataset.inputs], together)
    values: dict[str, npt.NDArray[Any]] = {}
    with TensorStore(memory_limit, disk_reserve) as store:
        batches = KeptBatches(dataset, batch_size, graph, store)
        for level in range(graph.levels):
            here = [point for point in points if graph.stage_of(point) == level]
            _run_stage(graph, batches, level, here, values, threads, visit)
            for point in here:
                for name, value in finish(point).items():
                    if not np.isfinite(value).all():
                        raise VerificationError(
                            f"{point.name}: the correction is not finite in {value.dtype}"
                        )
                    values[name] = value
            base = min(batches.bases, default=0)  # no stage begins before it any more
            for name in [name for name in values if graph.last_use(name) < base]:
                del values[name]
            if progress is not None:
                progress(level + 1, graph.levels)
        log.debug("%d stages, %d bytes in files", graph.levels, store.spilled)


def _run_stage(
    graph: StageGraph,
    batches: KeptBatches,
    level: int,
    points: Sequence[Point],
    values: Values,
    threads: int | None,
    visit: Callable[[Point, npt.NDArray[Any], Span], None],
) -> None:
    """Run a stage over all batches, and show the points' tensors."""
    sessions: dict[int, Session | None] = {}
    last = level + 1 == graph.levels
    keep = [] if last else graph.cut(level + 1)
    wanted = list(dict.fromkeys([*(point.tensor for point in points), *keep]))
    for i, batch in batches.run():
        base = batches.bases[i]
        if base not in sessions:
            outputs = [name for name in wanted if name not in graph.cut(base)]
            stage = graph.stage(base, outputs, batches.specs(base), values) if outputs else None
            sessions[base] = stage and Session(stage, threads=threads, shared_memory=True)
        tensors = dict(batch.feeds)
        if (session := sessions[base]) is not None:
            names = {spec.name for spec in session.inputs}
            tensors |= session.run({n: v for n, v in tensors.items() if n in names})
        span = Span(batches.parts[i].start, batch.count, batches.rows(i))
        for point in points:
            visit(point, tensors[point.tensor], span)
        if not last:
            batches.keep(i, level + 1, tensors)
