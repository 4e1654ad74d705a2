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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.errors import VerificationError
from onnx_esn.numerics.moments import Moments

from .calibration_set import Batch, CalibrationSet
from .point_moments import Point, point_moments
from .prefetch import prefetch
from .session import Session
from .stage_graph import StageGraph
from .tensor_spec import TensorSpec
from .tensor_store import DISK_RESERVE, TensorStore

log = logging.getLogger(__name__)

Values = Mapping[str, npt.NDArray[Any]]
Update = Callable[[Point, Moments], Values]
MEMORY_LIMIT = 2**30
# A cut that is larger than GROWTH times the last one kept is computed again for the next stages
# instead of being kept: memory costs more than arithmetic, and a narrower cut follows a wide one
# (expansion layers). After RERUN stages any cut is kept.
GROWTH, RERUN = 1.5, 4


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
        batch_size: samples in one run; the result does not depend on it.
        memory_limit: bytes of tensors kept in memory between stages.
        disk_reserve: bytes left free on the disk of the temporary folder; None never writes.
        threads: threads for one operator.
        progress: called with (stages done, stages).

    Raises:
        VerificationError: a statistic or a new value is not finite; names the layer.
        OperationError: a point cannot be measured in stages, or the model does not run.
    """
    graph = StageGraph(model, points, [spec.name for spec in dataset.inputs])
    result: dict[str, Moments] = {}
    values: dict[str, npt.NDArray[Any]] = {}
    with TensorStore(memory_limit, disk_reserve) as store:
        batches = _Batches(dataset, dataset.fixed_batch or batch_size, graph, store)
        for level in range(graph.levels):
            here = [point for point in points if graph.level(point.tensor) == level]
            measured = _run_stage(graph, batches, level, here, values, threads)
            for point in here:
                moments = result[point.node] = measured[point.tensor, point.axis]
                for name, value in (update(point, moments) if update else {}).items():
                    if not np.isfinite(value).all():
                        raise VerificationError(
                            f"{point.name}: the correction is not finite in {value.dtype}"
                        )
                    values[name] = value
            if progress is not None:
                progress(level + 1, graph.levels)
        log.debug("%d stages, %d bytes in files", graph.levels, store.spilled)
    return result


class _Batches:
    """The batches, each with the last cut of it that is kept."""

    def __init__(
        self, dataset: CalibrationSet, size: int, graph: StageGraph, store: TensorStore
    ) -> None:
        self.dataset = dataset
        self.parts = [
            range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)
        ]
        self.size = size
        self.graph = graph
        self.store = store
        self.bases = [0] * len(self.parts)
        # Whether the cut is in the store; only cut 0 can be read from the images instead.
        self.stored = [False] * len(self.parts)

    def run(self) -> Iterator[tuple[int, Batch]]:
        """Number and tensors of each batch; those that come from images are read ahead."""
        stored = list(self.stored)
        from_images = (self._read(i) for i, there in enumerate(stored) if not there)
        with closing(prefetch(from_images)) as ready:
            for i, there in enumerate(stored):
                if there:
                    cut = self.graph.cut(self.bases[i])
                    yield i, Batch({n: self.store.get(i, n) for n in cut}, len(self.parts[i]))
                else:
                    yield i, next(ready)

    def rows(self, i: int) -> int:
        """Samples in the tensors of a batch, padding included."""
        return self.dataset.fixed_batch or len(self.parts[i])

    def keep(self, i: int, level: int, tensors: Values) -> None:
        """Keep cut `level` of a batch in place of the one before, if that is worth its bytes."""
        base, stored = self.bases[i], self.stored[i]
        old = self.graph.cut(base)
        new = self.graph.cut(level)
        sizes = [sum(getattr(tensors[n], "nbytes", 0) for n in cut) for cut in (old, new)]
        if level - base >= RERUN or sizes[1] <= GROWTH * sizes[0]:
            there = set(old) if stored else set()
            if self.store.put(i, {n: tensors[n] for n in new if n not in there}):
                self.store.drop(i, [n for n in old if n not in new])
                self.bases[i], self.stored[i] = level, True
                return
        if not stored:  # images take longer to decode than to keep
            self.stored[i] = self.store.put(i, {n: tensors[n] for n in old})

    def specs(self, base: int) -> dict[str, TensorSpec]:
        """Type and shape of the tensors in a cut."""
        if base:
            return {name: self.store.spec(name) for name in self.graph.cut(base)}
        fixed = self.dataset.fixed_batch
        return {
            s.name: replace(s, shape=(fixed, *s.shape[1:])) if s.shape else s
            for s in self.dataset.inputs
        }

    def _read(self, i: int) -> Batch:
        return next(self.dataset.subset(self.parts[i]).batches(self.size))


def _run_stage(
    graph: StageGraph,
    batches: _Batches,
    level: int,
    points: Sequence[Point],
    values: Values,
    threads: int | None,
) -> dict[tuple[str, int], Moments]:
    """Run a stage over all batches: moments by (tensor, axis)."""
    sessions: dict[int, Session | None] = {}
    last = level + 1 == graph.levels
    keep = [] if last else graph.cut(level + 1)
    wanted = list(dict.fromkeys([*(point.tensor for point in points), *keep]))
    moments: dict[tuple[str, int], Moments] = {}
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
        for key, point in {(p.tensor, p.axis): p for p in points}.items():
            new = point_moments(point, tensors[point.tensor], batch.count, batches.rows(i))
            moments[key] = moments[key].merge(new) if key in moments else new
        if not last:
            batches.keep(i, level + 1, tensors)
    return moments
