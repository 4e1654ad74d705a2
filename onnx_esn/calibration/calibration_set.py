"""A set of samples for one model: batches of feeds, deterministic parts, labels."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import ImageSetError, OptionError

from .recipe import Recipe
from .samples import Samples
from .tensor_spec import TensorSpec, check_fixed_batches, check_shape
from .views import Views, all_views, channels_last, usual_views

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Batch:
    """Feeds by input name, each ``B x …``, of which the first ``count`` samples are real.

    The others repeat the last one, to fill the batch of a model whose batch size is fixed.
    """

    feeds: dict[str, npt.NDArray[Any]]
    count: int


@dataclass(frozen=True)
class Origin:
    """How the whole set can be opened again.

    Attributes:
        place: an absolute path or a URL.
        recipe: of its images; None for tensors.
    """

    place: str
    recipe: Recipe | None


class CalibrationSet:
    """Samples that fit the inputs of one model. Make one with `open_set`.

    Parts (`split`, `take`, `subset`) share the decoded images of the whole and keep its name,
    ``skipped`` and ``warnings``. What is in ``skipped`` and ``warnings`` has been logged already.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[TensorSpec],
        samples: Samples,
        *,
        sources: Sequence[str] | None = None,
        labels: npt.NDArray[np.int64] | None = None,
        files: Sequence[str] | None = None,
        skipped: Sequence[tuple[str, str]] = (),
        warnings: Sequence[str] = (),
        origin: Origin | None = None,
        indices: npt.NDArray[np.intp] | None = None,
        views: Views | None = None,
    ) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.labels = labels
        self.files = None if files is None else tuple(files)
        self.skipped = tuple(skipped)
        self.warnings = tuple(warnings)
        self.origin = origin
        self._samples = samples
        # The names `samples` uses for the inputs; another model may call the same input otherwise.
        self._sources = tuple(sources or (spec.name for spec in self.inputs))
        self._indices = np.arange(len(samples)) if indices is None else indices
        self._views = views

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def fixed_batch(self) -> int | None:
        """The batch size the model insists on, or None."""
        sizes = [spec.fixed_batch for spec in self.inputs if spec.fixed_batch is not None]
        return sizes[0] if sizes else None

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, ``size`` at a time; the last batch may be smaller.

        A model with a fixed batch gets exactly that many instead, padded at the end.

        Raises:
            OptionError: ``size`` below 1.
            ImageSetError: an image has become unreadable since the set was opened.
        """
        if size < 1:
            raise OptionError(f"batch size {size} must be at least 1")
        return self._batches(self.fixed_batch or size, padded=self.fixed_batch is not None)

    def split(self, held_out: float) -> tuple[CalibrationSet, CalibrationSet]:
        """``(rest, held)``: a fraction is held out, evenly over the set, always the same samples.

        Raises:
            OptionError: ``held_out`` not between 0 and 1.
            ImageSetError: fewer than two samples.
        """
        rest, held = self.split_indices(held_out)
        return self.subset(rest), self.subset(held)

    def split_indices(self, held_out: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Indices of the samples in the two parts of `split`; raises what that raises."""
        if not 0 < held_out < 1:
            raise OptionError(f"held-out fraction {held_out} must lie between 0 and 1")
        total = len(self)
        if total < 2:
            raise ImageSetError(f"{self.name}: one sample cannot be split; give at least two")
        held = spread(total, min(max(round(total * held_out), 1), total - 1))
        return np.setdiff1d(np.arange(total), held), held

    def take(self, count: int) -> CalibrationSet:
        """At most ``count`` samples, spread evenly over the set.

        Raises:
            OptionError: ``count`` below 1.
        """
        if count < 1:
            raise OptionError(f"number of samples {count} must be at least 1")
        return self if count >= len(self) else self.subset(spread(len(self), count))

    def subset(self, indices: Sequence[int] | npt.NDArray[Any]) -> CalibrationSet:
        """The samples at ``indices`` of this set, in that order.

        Raises:
            ImageSetError: no index, or one outside the set.
        """
        chosen = np.asarray(indices, dtype=np.intp)
        if not chosen.size:
            raise ImageSetError(f"{self.name}: an empty part of the set was asked for")
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise ImageSetError(f"{self.name}: index outside its {len(self)} samples")
        return self._changed(
            labels=None if self.labels is None else self.labels[chosen],
            files=None if self.files is None else [self.files[index] for index in chosen],
            indices=self._indices[chosen],
            views=None if self._views is None else self._views.part(chosen),
        )

    def for_inputs(self, inputs: Sequence[TensorSpec]) -> CalibrationSet:
        """The same samples for another model, whose single input may have another name.

        Raises:
            ImageSetError: the samples do not fit; names both shapes.
        """
        own = {spec.name: source for spec, source in zip(self.inputs, self._sources, strict=True)}
        if len(inputs) == 1 and len(own) == 1:
            sources = list(own.values())
        else:
            missing = [spec.name for spec in inputs if spec.name not in own]
            if missing:
                raise ImageSetError(
                    f"{self.name}: has no samples for the model input '{missing[0]}' "
                    f"(it has {', '.join(own)})"
                )
            sources = [own[spec.name] for spec in inputs]
        check_fixed_batches(inputs)
        first = self._samples.read([int(self._indices[0])])
        for spec, source in zip(inputs, sources, strict=True):
            check_shape(first[source].shape, spec, self.name)
        return self._changed(inputs=inputs, sources=sources)

    def with_views(
        self, count: int | None = None, *, seed: int = 0, apart: Collection[int] = ()
    ) -> CalibrationSet:
        """``count`` views of each image (`calibration.views`): itself and others made of it.

        The images as they are come first, in their order. The set itself comes back where one view
        of each is enough, where it has views already, where the model has several inputs (which may
        belong together) and where samples are no pictures.

        Args:
            count: of each image; None: `calibration.views.usual_views`.
            seed: draws them.
            apart: images (indices of this set) that must not show in views of the others.

        Raises:
            OptionError: ``count`` is no whole number of at least 1.
        """
        count = usual_views(len(self)) if count is None else count
        if not isinstance(count, int) or count < 1:
            raise OptionError(f"views of each image: {count!r} is not a whole number of at least 1")
        if count < 2 or self._views is not None or len(self.inputs) != 1:
            return self
        first = self._samples.read([int(self._indices[0])])[self._sources[0]]
        if channels_last(first, self.recipe) is None:
            return self
        views = all_views(self._indices, count, seed, apart)
        return self.among_samples(self._indices[views.image], views)

    def among_samples(self, indices: npt.NDArray[np.intp], views: Views | None) -> CalibrationSet:
        """Samples by where they are in the whole set, and which views of them: see `selection`."""
        return self._changed(labels=None, files=None, indices=indices, views=views)

    @property
    def selection(self) -> tuple[npt.NDArray[np.intp], Views | None]:
        """What tells this part from other parts of the whole set."""
        return self._indices, self._views

    @property
    def as_they_are(self) -> CalibrationSet:
        """The samples that are no further view of another one."""
        if self._views is None:
            return self
        return self.subset(np.flatnonzero(self._views.number == 0))

    @property
    def halves(self) -> npt.NDArray[np.intp]:
        """(n,) 0 or 1: every second image is in the other half, with all its views."""
        return np.arange(len(self)) % 2 if self._views is None else self._views.half

    def all_views_of(self, images: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        """Indices of all samples that show some images, which are given by their indices."""
        if self._views is None:
            return np.asarray(images, np.intp)
        return np.flatnonzero(np.isin(self._views.image, images))

    @property
    def indices(self) -> npt.NDArray[np.intp]:
        """Where its samples are in the whole set."""
        return self._indices

    @property
    def sources(self) -> tuple[str, ...]:
        """For each input, the name under which its samples are kept."""
        return self._sources

    @property
    def recipe(self) -> Recipe | None:
        """What `raw` leaves to be done: see `Samples`."""
        return self._samples.recipe

    def raw(self, size: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """All samples in order, ``size`` at a time, as they are kept: see `Samples`."""
        for start in range(0, len(self), size):
            yield self._samples.raw(self._indices[start : start + size].tolist())

    def _changed(self, **changed: Any) -> CalibrationSet:
        given = {
            "inputs": self.inputs,
            "sources": self._sources,
            "labels": self.labels,
            "files": self.files,
            "indices": self._indices,
            "views": self._views,
        }
        return CalibrationSet(
            self.name,
            samples=self._samples,
            skipped=self.skipped,
            warnings=self.warnings,
            origin=self.origin,
            **{**given, **changed},
        )

    def _batches(self, size: int, *, padded: bool) -> Iterator[Batch]:
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self)))
            count = len(rows)
            if padded and count < size:
                rows = np.concatenate([rows, np.repeat(rows[-1:], size - count)])
            read = self._read(rows)
            pairs = zip(self.inputs, self._sources, strict=True)
            yield Batch({spec.name: _cast(read[key], spec) for spec, key in pairs}, count)

    def _read(self, rows: npt.NDArray[np.intp]) -> dict[str, npt.NDArray[Any]]:
        own = self._samples.read(self._indices[rows].tolist())
        if self._views is None or not self._views.number[rows].any():
            return own
        mates = self._samples.read(self._views.mate[rows].tolist())
        return self._views.shown(rows, own, mates, self.recipe)


def spread(total: int, count: int) -> npt.NDArray[np.intp]:
    """``count`` of ``total`` indices, one from each of ``count`` equal stretches, increasing.

    The place within a stretch varies, so that a set with its classes in turn is not sampled in
    step with them.
    """
    edges = np.arange(count + 1) * total // count
    places = np.modf(np.arange(1, count + 1) * _GOLDEN)[0]
    picked: npt.NDArray[np.intp] = (edges[:-1] + places * np.diff(edges)).astype(np.intp)
    return picked


def _cast(array: npt.NDArray[Any], spec: TensorSpec) -> npt.NDArray[Any]:
    if spec.dtype.kind in "iu" and array.dtype.kind == "f":
        limits = np.iinfo(spec.dtype)
        array = np.clip(np.rint(array), limits.min, limits.max)
    try:
        with np.errstate(over="raise"):
            return np.ascontiguousarray(array, dtype=spec.dtype)
    except FloatingPointError:
        raise ImageSetError(
            f"values up to {np.abs(array).max():.3g} are too large for the model input "
            f"'{spec.name}' of type {spec.dtype}"
        ) from None
