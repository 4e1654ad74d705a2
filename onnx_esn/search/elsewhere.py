"""The points of a sweep, computed by the workers of a Dask cluster."""

from __future__ import annotations

import functools
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnx_esn.calibration import CalibrationSet
from onnx_esn.cluster.connection import connected
from onnx_esn.cluster.dispatch import Cluster, Died
from onnx_esn.cluster.image_parcel import ImageParcel
from onnx_esn.cluster.payload import Payload, model_parcel, parcel
from onnx_esn.errors import OnnxEsnError, OutputError
from onnx_esn.passes.inspecting.esn_metrics import EsnMetrics
from onnx_esn.passes.layerwise.shards import ShardSums, ShardTask

from .computing import Compress, Computed, Computer
from .methods import Job
from .observing import observe_input
from .runner import Outcome, outcome_of

log = logging.getLogger(__name__)

# Points for which `compress` observes the input model, None being those of a grid; and the options
# that this depends on.
_OBSERVING = (None, "quantize-only", "prune-only", "joint")
_SELECTING = ("only", "exclude", "requantize", "rotate", "input_shape")
_OPTIONS = (*_SELECTING, "views", "batch_size", "threads", "effort")


class _WorkersDiedError(Exception):
    """Each worker that a shard was handed to."""


@dataclass
class _Setup:
    """What a computer needs besides models and sets; it lives as long as the worker holds it."""

    hashes: tuple[str, ...]  # so that it is one of its own for each model and set
    before: EsnMetrics
    compress: Compress
    models: bool
    computer: Computer | None = None


@dataclass(frozen=True)
class Elsewhere:
    """Points computed on a cluster, each by one worker.

    Attributes:
        address: of the scheduler.
        computer: what would compute them here.
        hashes: of its model, of its images, and of its other sets.
        models: whether the compressed models are wanted.
    """

    address: str
    computer: Computer
    hashes: Sequence[str]
    models: bool

    def __call__(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """See `Place`."""
        with connected(self.address) as client:
            cluster = Cluster(client)
            payloads = self._payloads()
            self._observe(cluster, payloads["images"], jobs)
            payloads["known"] = parcel(self.computer.known)
            kinds = [job.point.ratio for job in jobs]
            for number, result in cluster.run(compute, jobs, payloads, kinds):
                if isinstance(result, Died):
                    who = ", ".join(result.workers)
                    yield number, f"{len(result.workers)} workers died of it: {who} (memory?)"
                else:
                    yield number, result

    def _observe(self, cluster: Cluster, images: Payload, jobs: Sequence[Job]) -> None:
        """Sum up what points share, each shard of the images on some worker."""
        mine = self.computer
        wanted = [job for job in jobs if job.point.method in _OBSERVING]
        # A part of a set has other numbers where it was sent.
        if not wanted or not mine.shares or (np.diff(mine.images.indices) != 1).any():
            return
        options = {k: v for k, v in wanted[0].options.items() if k in _OPTIONS}
        uniform, apart = wanted[0].point.method is None, "eval_images" in mine.sets
        judged = {
            "target_cost" in job.options and bool(job.options.get("channels", True))
            for job in wanted
        }
        spread = functools.partial(_spread, cluster, images)
        try:
            for pruning in sorted(judged):
                observe_input(
                    mine.model,
                    mine.images,
                    mine.known,
                    spread,
                    uniform=uniform,
                    pruning=pruning,
                    apart=apart,
                    **options,
                )
        except (OnnxEsnError, _WorkersDiedError) as error:
            log.info("left to the points: %s", error)  # which say what is wrong

    def _payloads(self) -> dict[str, Payload]:
        mine = self.computer
        sets = {f"set {name}": images for name, images in mine.sets.items()}
        model, *prints = self.hashes
        setup = _Setup(tuple(self.hashes), mine.before, mine.compress, self.models)
        found: dict[str, Payload] = {
            "model": model_parcel(mine.model, model),
            "setup": parcel(setup),
        }
        for (name, images), print_ in zip(
            {"images": mine.images, **sets}.items(), prints, strict=True
        ):
            found[name] = ImageParcel(images, print_)
        return found


def _spread(
    cluster: Cluster,
    images: Payload,
    task: ShardTask,
    data: CalibrationSet,
    shards: Sequence[range],
) -> Iterator[ShardSums]:
    """`shards.one_by_one` on a cluster; the sums come in the order of the shards."""
    items = [(data.subset(shard).selection, shard.start) for shard in shards]
    waiting: dict[int, ShardSums] = {}
    wanted = 0
    for number, found in cluster.run(_sum, items, {"images": images, "task": parcel(task)}):
        if isinstance(found, Died):
            raise _WorkersDiedError(", ".join(found.workers))
        waiting[number] = found
        while wanted in waiting:
            yield waiting.pop(wanted)
            wanted += 1


def _sum(held: Mapping[str, Any], item: tuple[Any, int]) -> ShardSums:
    """One shard, on a worker."""
    (indices, views), first = item
    task: ShardTask = held["task"]
    return task(held["images"].among_samples(indices, views), first)


def compute(held: Mapping[str, Any], job: Job) -> Outcome:
    """One point, on a worker."""
    setup: _Setup = held["setup"]
    if setup.computer is None:
        sets: dict[str, CalibrationSet] = {
            name.removeprefix("set "): thing
            for name, thing in held.items()
            if name.startswith("set ")
        }
        model, images = held["model"], held["images"]
        setup.computer = Computer(model, images, sets, setup.before, setup.compress, held["known"])
    try:
        outcome = outcome_of(setup.computer, job)
    except OutputError as error:  # of its temporary files, not of the sweep's folder
        return f"{socket.gethostname()}: {error}"
    if isinstance(outcome, Computed) and not setup.models:
        return replace(outcome, model=None)
    return outcome
