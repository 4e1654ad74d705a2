"""What the layers of a model read and make, summed over shards of the images.

Sums of floating-point numbers depend on their order. So the images are cut into shards whose size
does not depend on who adds them up: the batches of a shard are added in their order, and the shards
in theirs. Whether one process does it all or many machines do, the bytes are the same.

A shard that is being summed takes as much memory as the total; where that would be more than
`MOST_BYTES`, the whole set is one shard.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import VerificationError
from onnx_esn.numerics.cross_moments import CrossMoments, cross_moments, no_moments
from onnx_esn.passes.layerwise.sampling import LayerSampler, Sampling, Taken, Wanted

Array = npt.NDArray[np.generic]
Parts = list[CrossMoments]
Progress = Callable[[int, int], None]
# Images of a shard, at least; a model with a fixed batch gets a multiple of that.
SHARD = 64
MOST_BYTES = 1 << 28


@dataclass
class ShardSums:
    """What was taken of some samples in a row.

    Attributes:
        taken: outputs of layers at some positions, by layer name.
        missing: layers that do not follow the batch.
        parts: second moments of inputs, of even samples, odd ones and those held apart, by layer
            name.
    """

    taken: dict[str, Taken] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    parts: dict[str, Parts] = field(default_factory=dict)

    def add(self, other: ShardSums) -> None:
        """Add those of the samples that follow."""
        self.missing |= other.missing
        for name, new in other.taken.items():
            old = self.taken.setdefault(name, new)
            if old is new:
                continue
            if old.places != new.places or list(old.outputs) != list(new.outputs):
                self.missing.add(name)
                continue
            old.at.extend(new.at)
            for tensor, rows in new.outputs.items():
                old.outputs[tensor].extend(rows)
        for name, parts in other.parts.items():
            mine = self.parts.setdefault(name, parts)
            if mine is not parts:
                for i, new_part in enumerate(parts):
                    mine[i] = _single(mine[i].merge(new_part))


class ShardTask:
    """Sums a shard; the model is loaded once, also where the task was sent to.

    Args:
        model: the model.
        sampling: what to take of it, and whether moments of inputs are wanted.
    """

    def __init__(self, model: onnx.ModelProto, sampling: Sampling) -> None:
        self.model, self.sampling = model, sampling
        self._sampler: LayerSampler | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sampler": None}

    def __call__(
        self, images: CalibrationSet, first: int = 0, progress: Progress | None = None
    ) -> ShardSums:
        """Run the samples of a shard, of which the first has this number in the set."""
        if self._sampler is None:
            self._sampler = LayerSampler(self.model, self.sampling, images)
        found = ShardSums()
        add = functools.partial(_add, found.parts, self.sampling.parts)
        visit = add if self.sampling.inputs else None
        found.taken, found.missing = self._sampler.run(
            images, first=first, visit=visit, progress=progress
        )
        return found


# Gives the sums of all shards of a set, in their order.
Spread = Callable[[ShardTask, CalibrationSet, Sequence[range]], Iterator[ShardSums]]


def cut(images: CalibrationSet, wanted: Mapping[str, Wanted], *, inputs: bool) -> list[range]:
    """The shards of a set, for a model of these layers."""
    step = SHARD
    if images.fixed_batch is not None:
        step = -(-SHARD // images.fixed_batch) * images.fixed_batch
    if inputs and sum(8 * _numbers(w) for w in wanted.values()) > MOST_BYTES:
        step = len(images)
    return [range(i, min(i + step, len(images))) for i in range(0, len(images), step)]


def one_by_one(
    task: ShardTask,
    images: CalibrationSet,
    shards: Sequence[range],
    progress: Progress | None = None,
) -> Iterator[ShardSums]:
    """Sum the shards in this process."""
    for shard in shards:
        part = images if len(shards) == 1 else images.subset(shard)
        report = progress and functools.partial(_report, progress, shard.start, len(images))
        yield task(part, shard.start, report)


def total(parts: Iterator[ShardSums]) -> ShardSums:
    """All shards added up; layers that are missing in one are left out."""
    found = next(parts)
    for part in parts:
        found.add(part)
    for name in found.missing:
        found.taken.pop(name, None)
        found.parts.pop(name, None)
    return found


def _report(progress: Progress, before: int, count: int, done: int, _: int) -> None:
    progress(before + done, count)


def _numbers(wanted: Wanted) -> int:
    """In the second moments of a layer's inputs."""
    d = wanted.geometry.features
    return wanted.geometry.layer.groups * d * d


def _add(sums: dict[str, Parts], count: int, name: str, x: Array, part: int) -> None:
    if not np.isfinite(x).all():
        raise VerificationError(f"{name}: its inputs are not finite (NaN or infinity)")
    G, n, d = x.shape
    mine = sums.setdefault(name, [no_moments(G, 0, d) for _ in range(count)])
    mine[part] = _single(cross_moments(x, np.zeros((G, n, 0), x.dtype), mine[part]))


def _single(moments: CrossMoments) -> CrossMoments:
    """Those of all layers are held at once: d² numbers each."""
    return replace(moments, xx=moments.xx.astype(np.float32, copy=False))
