"""What a descent learns from: batches of inputs with the targets that belong to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnx_esn.calibration import CalibrationSet, Session
from onnx_esn.graph.inputs import Shape
from onnx_esn.passes.learning.options import LearnOptions
from onnx_esn.passes.learning.training_graph import Target
from onnx_esn.passes.learning.variations import varied

Array = npt.NDArray[Any]
Feeds = dict[str, Array]


class Examples(Protocol):
    """Batches of one size."""

    @property
    def sizes(self) -> Mapping[str, Shape]:
        """Shapes of the inputs, batch included."""

    @property
    def judges(self) -> bool:
        """Whether some are held out."""

    @property
    def per_epoch(self) -> int:
        """Batches."""

    def training(self, epoch: int) -> Iterator[Feeds]:
        """All of them, in an order that is drawn for the epoch."""

    def judging(self) -> Iterator[Feeds]:
        """Those held out, always the same."""


class ImageExamples:
    """Images, and what the reference makes of them at that moment.

    Attributes:
        sizes: shapes of the inputs, batch included.
        judges: whether some images are held out.
        per_epoch: batches.
    """

    def __init__(
        self,
        teacher: Session,
        targets: Sequence[Target],
        images: CalibrationSet,
        held: CalibrationSet | None,
        options: LearnOptions,
    ) -> None:
        self._teacher, self._targets = teacher, targets
        self._images, self._held, self._options = images, held, options
        self._batch = images.fixed_batch or min(options.batch_size, len(images))
        (first,) = images.take(1).batches(1)
        self.sizes: Mapping[str, Shape] = {
            name: (self._batch, *x.shape[1:]) for name, x in first.feeds.items()
        }
        self.judges, self.per_epoch = held is not None, max(len(images) // self._batch, 1)

    def training(self, epoch: int) -> Iterator[Feeds]:
        """See `Examples`; with `vary`, images are varied before the reference sees them."""
        rng = np.random.default_rng([self._options.seed, epoch])
        for chosen in drawn(rng, len(self._images), self._batch):
            (batch,) = self._images.subset(chosen).batches(self._batch)
            vary = self._options.vary
            yield self._with_targets(
                {n: varied(x, rng) if vary else x for n, x in batch.feeds.items()}
            )

    def judging(self) -> Iterator[Feeds]:
        """See `Examples`."""
        if self._held is None:
            return
        for chosen in in_turn(len(self._held), self._batch):
            (batch,) = self._held.subset(chosen).batches(self._batch)
            yield self._with_targets(batch.feeds)

    def _with_targets(self, feeds: Mapping[str, Array]) -> Feeds:
        wanted = self._teacher.run(feeds)
        return dict(feeds) | {t.feed: wanted[t.tensor] for t in self._targets}


class ArrayExamples:
    """Tensors that are all in memory; attributes as those of `ImageExamples`."""

    def __init__(
        self,
        arrays: Mapping[str, Array],
        held: Mapping[str, Array] | None,
        inputs: Sequence[str],
        options: LearnOptions,
    ) -> None:
        self._arrays, self._held, self._seed = arrays, held, options.seed
        self._count = len(next(iter(arrays.values())))
        self._batch = min(options.batch_size, self._count)
        self.sizes: Mapping[str, Shape] = {
            name: (self._batch, *arrays[name].shape[1:]) for name in inputs
        }
        self.judges, self.per_epoch = held is not None, max(self._count // self._batch, 1)

    def training(self, epoch: int) -> Iterator[Feeds]:
        """See `Examples`."""
        rng = np.random.default_rng([self._seed, epoch])
        for chosen in drawn(rng, self._count, self._batch):
            yield {name: array[chosen] for name, array in self._arrays.items()}

    def judging(self) -> Iterator[Feeds]:
        """See `Examples`."""
        if self._held is None:
            return
        count = len(next(iter(self._held.values())))
        for chosen in in_turn(count, self._batch):
            yield {name: array[chosen] for name, array in self._held.items()}


def drawn(rng: np.random.Generator, count: int, batch: int) -> Iterator[npt.NDArray[np.intp]]:
    """Full batches of indices in a drawn order; few samples are repeated to fill one."""
    order = rng.permutation(count)
    order = np.resize(order, max(count, batch))
    for start in range(0, len(order) - batch + 1, batch):
        yield order[start : start + batch]


def in_turn(count: int, batch: int) -> Iterator[npt.NDArray[np.intp]]:
    """Full batches of indices in order; the last one is filled with the first samples."""
    for start in range(0, count, batch):
        yield np.arange(start, start + batch) % count
