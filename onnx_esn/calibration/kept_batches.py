"""The batches of a set on their way through the stages: what is kept of each in between.

Memory costs more time than arithmetic, and a narrower cut follows a wide one (expansion layers).
A cut that would fill more than `SHARE` of the memory is therefore kept only if it is not larger
than `GROWTH` times the last one that was; else the next stage computes it again, up to `RERUN`
times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from onnx_esn.errors import OptionError

from .calibration_set import Batch, CalibrationSet
from .prefetch import prefetch
from .stage_graph import StageGraph
from .tensor_spec import TensorSpec
from .tensor_store import TensorStore

Values = Mapping[str, npt.NDArray[Any]]
SHARE, GROWTH, RERUN = 1 / 8, 1.5, 4


class KeptBatches:
    """The batches of a set, each with the last cut of it that is kept.

    Args:
        dataset: the samples.
        batch_size: most samples in a batch.
        graph: the model in stages.
        store: where cuts are kept.
    """

    def __init__(
        self, dataset: CalibrationSet, batch_size: int, graph: StageGraph, store: TensorStore
    ) -> None:
        if batch_size < 1:
            raise OptionError(f"batch size {batch_size} must be at least 1")
        size = dataset.fixed_batch or min(batch_size, _most(dataset, store.memory_limit))
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
        small = sizes[1] * len(self.parts) <= SHARE * self.store.memory_limit
        if small or sizes[1] <= GROWTH * sizes[0] or level - base >= RERUN:
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


def _most(dataset: CalibrationSet, memory_limit: int) -> int:
    """Samples whose inputs take 1/64 of the memory: layers make many times as much of them."""
    sample = next(dataset.subset([0]).batches(1)).feeds
    return max(1, memory_limit // 64 // max(1, sum(value.nbytes for value in sample.values())))
