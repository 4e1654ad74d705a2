"""The jobs of a sweep: taken from their files, or computed and written there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from onnx_esn.errors import OnnxEsnError, OutputError
from onnx_esn.graph.model_file import save_model

from .computing import Computed, Computer
from .fingerprint import fingerprint_options
from .methods import Job, Options
from .point import Baseline, Point, read_point, write_point

log = logging.getLogger(__name__)

Outcome = Computed | str
"""A computed point, or why it failed."""


class Place(Protocol):
    """Where points are computed."""

    def __call__(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Number and outcome of each job, in any order, as soon as it is there."""
        ...


@dataclass
class Runner:
    """What the files of all points share.

    Attributes:
        hashes: of the model and of the samples.
        options: that every point has, for `compress`.
        folder: of the sweep.
        save_models: whether compressed models are written.
        baseline: the input model's figures, once a point is there.
        computed: points that were not taken from a file.
    """

    hashes: tuple[str, str]
    options: Options
    folder: Path
    save_models: bool
    baseline: Baseline | None = None
    computed: int = 0

    def run(self, jobs: Sequence[Job], place: Place) -> Iterator[tuple[int, Point]]:
        """Number and point of every job, finished or failed: those with a file first.

        Raises:
            OutputError: a file cannot be written.
        """
        left: list[tuple[int, Job]] = []
        for number, job in enumerate(jobs):
            found = self._read(job)
            if found is None:
                left.append((number, job))
                continue
            self.baseline = self.baseline or found[1]
            yield number, replace(found[0], model=self._saved(job))
        whole = [replace(job, options={**self.options, **job.options}) for _, job in left]
        for i, outcome in place(whole) if whole else ():
            self.computed += 1
            number, job = left[i]
            yield number, self._store(job, outcome)

    def _store(self, job: Job, outcome: Outcome) -> Point:
        if isinstance(outcome, str):
            log.warning("%s: failed: %s", job.point.label, outcome)
            return replace(job.point, reason=outcome)
        saved = self._saved(job)
        if (
            saved is not None and outcome.model is not None
        ):  # first: where there is a point, its model is there whole
            save_model(outcome.model, self.folder / saved)
        point = replace(outcome.point, model=saved)
        write_point(self._path(job), self._key(job), point, outcome.baseline)
        self.baseline = self.baseline or outcome.baseline
        assert point.figures is not None
        log.info("%s: ESN'_d %.4g", point.label, point.figures.esn_prime)
        return point

    def _read(self, job: Job) -> tuple[Point, Baseline] | None:
        found = read_point(self._path(job), self._key(job))
        saved = self._saved(job)
        return None if saved and not (self.folder / saved).is_file() else found

    def _key(self, job: Job) -> str:
        return fingerprint_options(*self.hashes, {**self.options, **job.options})

    def _path(self, job: Job) -> Path:
        return self.folder / "points" / f"{job.point.label}_{self._key(job)[:12]}.json"

    def _saved(self, job: Job) -> str | None:
        return f"models/{self._path(job).stem}.onnx" if self.save_models else None


@dataclass(frozen=True)
class Here:
    """One point after the other, in this process."""

    computer: Computer

    def __call__(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """See `Place`."""
        for number, job in enumerate(jobs):
            yield number, outcome_of(self.computer, job)


def outcome_of(computer: Computer, job: Job) -> Outcome:
    """The point of a job whose options are complete.

    Raises:
        OutputError: there is no room for temporary files, say; it is not the point that fails.
    """
    try:
        return computer(job.point, job.options)
    except OutputError:
        raise
    except OnnxEsnError as error:
        return str(error)
