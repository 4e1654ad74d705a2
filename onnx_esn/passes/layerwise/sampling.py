"""Outputs, and inputs, of a model's layers at some positions, in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, Session, iterate_outputs
from onnx_esn.calibration.patches import choose_positions
from onnx_esn.passes.layerwise.geometry import Geometry, area

Array = npt.NDArray[np.generic]
Indices = npt.NDArray[np.int64]
NOWHERE = np.zeros(0, np.int64)
_MEMORY = 1 << 28  # bytes of one batch's tensors


@dataclass(frozen=True)
class Wanted:
    """What to take of one layer.

    Attributes:
        geometry: of the layer in the model that is sampled.
        rows: output positions to take of each sample, at most.
        tensors: names of tensors shaped like the layer's output: the output itself and, perhaps,
            the sum that it goes into.
    """

    geometry: Geometry
    rows: int
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Taken:
    """Samples of one layer: where, and of each tensor the outputs (n, M) of each sample."""

    places: tuple[int, ...]
    at: list[Indices]
    outputs: dict[str, list[Array]]

    def part(self, samples: Sequence[int] | npt.NDArray[np.integer]) -> Taken:
        """Those of some samples, in this order; nothing is copied."""
        outputs = {name: [rows[s] for s in samples] for name, rows in self.outputs.items()}
        return Taken(self.places, [self.at[s] for s in samples], outputs)


@dataclass(frozen=True)
class Sampling:
    """What to take of a model's layers, and how.

    Attributes:
        wanted: what to take, by layer name.
        seed: draws the positions.
        batch_size: most samples in one run (fewer where tensors are large).
        threads: threads for one operator.
        inputs: whether the inputs are wanted too.
        held: samples whose inputs are to be shown apart from the others.
        halves: (samples,) in which half of the set each is; None: every second one in the other.
    """

    wanted: Mapping[str, Wanted]
    seed: int
    batch_size: int
    threads: int | None = None
    inputs: bool = False
    held: frozenset[int] = frozenset()
    halves: Indices | None = None

    def part(self, sample: int) -> int:
        """In which part of the set a sample is: 0 even ones, 1 odd ones, 2 those held apart."""
        if sample in self.held:
            return 2
        return sample % 2 if self.halves is None else int(self.halves[sample])

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return 3 if self.held else 2


# Called with a layer's name, inputs (G, n, d), and the part of the set that they are of.
Visit = Callable[[str, Array, int], None]


def sample_layers(
    model: onnx.ModelProto,
    wanted: Mapping[str, Wanted],
    images: CalibrationSet,
    *,
    seed: int,
    batch_size: int,
    threads: int | None = None,
    visit: Visit | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Taken]:
    """Samples by layer name; layers whose tensors do not follow the batch are left out.

    Args:
        model: the model.
        wanted: what to take, by layer name.
        images: a set that fits the model.
        seed: draws the positions.
        batch_size: most samples in one run (fewer where tensors are large).
        threads: threads for one operator.
        visit: is shown the inputs too.
        progress: called with (samples done, samples).

    Raises:
        InferenceError: the model does not run, or makes NaN or infinity.
    """
    sampling = Sampling(wanted, seed, batch_size, threads, inputs=visit is not None)
    sampler = LayerSampler(model, sampling, images)
    taken, missing = sampler.run(images, visit=visit, progress=progress)
    return {name: entry for name, entry in taken.items() if name not in missing}


class LayerSampler:
    """A model loaded to be sampled, for one part of a set after the other.

    Args:
        model: the model.
        sampling: what to take of it.
        images: some of the samples.
    """

    def __init__(self, model: onnx.ModelProto, sampling: Sampling, images: CalibrationSet) -> None:
        wanted, batch_size = sampling.wanted, sampling.batch_size
        names = {name for w in wanted.values() for name in w.tensors}
        if sampling.inputs:
            names |= {w.geometry.data for w in wanted.values()}
        fed = {spec.name for spec in images.inputs}
        self._sampling = sampling
        self._session = Session(model, outputs=sorted(names - fed), threads=sampling.threads)
        images = images.for_inputs(self._session.inputs)
        if images.fixed_batch is None:
            one = self._session.run(next(images.take(1).batches(1)).feeds)
            sample = sum(getattr(value, "nbytes", 0) for value in one.values())
            batch_size = max(1, min(batch_size, _MEMORY // max(sample, 1)))
        self._batch_size = batch_size

    def run(
        self,
        images: CalibrationSet,
        *,
        first: int = 0,
        visit: Visit | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[dict[str, Taken], set[str]]:
        """Samples by layer name, and the layers whose tensors do not follow the batch.

        Args:
            images: a part of the set that is in a row.
            first: number of its first sample in the whole set.
            visit, progress: see `sample_layers`.
        """
        images = images.for_inputs(self._session.inputs)
        taken: dict[str, Taken] = {}
        missing: set[str] = set()
        done = 0
        batches = iterate_outputs(
            self._session, images, self._batch_size, with_feeds=True, first=first
        )
        for tensors in batches:
            size = min(images.fixed_batch or self._batch_size, len(images) - done)
            number = first + done
            for name, want in self._sampling.wanted.items():
                entry = _entry(want, tensors, size, taken.get(name))
                if entry is None:
                    missing.add(name)
                    continue
                taken[name] = entry
                positions = area(entry.places)
                at = [
                    choose_positions(self._sampling.seed, number + i, positions, want.rows)
                    for i in range(size)
                ]
                entry.at.extend(at)
                for tensor, rows in entry.outputs.items():
                    for i in range(size):
                        found = want.geometry.outputs_at(tensors[tensor], size, i, at[i])
                        rows.append(np.ascontiguousarray(found))
                if visit is not None:
                    parts = [self._sampling.part(number + i) for i in range(size)]
                    _show(visit, name, want.geometry, tensors, size, entry.places, at, parts)
            done += size
            if progress is not None:
                progress(done, len(images))
        return taken, missing


def _entry(
    want: Wanted, tensors: Mapping[str, Array], size: int, entry: Taken | None
) -> Taken | None:
    """Where a batch's samples go; None where the tensors do not follow the batch."""
    values = [tensors[tensor] for tensor in want.tensors]
    places = [want.geometry.places(value, size) for value in values]
    if places[0] is None:
        return None
    # A sum that broadcasts the layer's output is no stream.
    alike = [t for t, p in zip(want.tensors, places, strict=True) if p == places[0]]
    if entry is None:
        return Taken(places[0], [], {t: [] for t in alike})
    return entry if entry.places == places[0] and list(entry.outputs) == alike else None


def _show(
    visit: Visit,
    name: str,
    geometry: Geometry,
    tensors: Mapping[str, Array],
    size: int,
    places: tuple[int, ...],
    at: Sequence[Indices],
    parts: Sequence[int],
) -> None:
    """Hand over the inputs of a batch, those of each part of the set apart."""
    for part in sorted(set(parts)):
        mine = [a if own == part else NOWHERE for own, a in zip(parts, at, strict=True)]
        if any(a.size for a in mine):
            visit(name, geometry.inputs_at(tensors[geometry.data], size, places, mine), part)
