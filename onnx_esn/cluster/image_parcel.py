"""Image sets for workers: read by themselves where they can, sent as decoded pixels where not."""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.calibration import CalibrationSet, TensorSpec, open_set
from onnx_esn.calibration.calibration_set import Origin
from onnx_esn.calibration.images import normalize
from onnx_esn.calibration.recipe import Recipe
from onnx_esn.calibration.set_fingerprint import fingerprint_set
from onnx_esn.errors import ImageSetError
from onnx_esn.shelf import LEAST, new_file
from onnx_esn.temporary import writing_temporary

from .held import Build, Reach

Arrays = Mapping[str, npt.NDArray[Any]]
# Samples sent at once.
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class _Facts:
    """All of a set but its samples."""

    name: str
    inputs: tuple[TensorSpec, ...]
    sources: tuple[str, ...]
    labels: npt.NDArray[np.int64] | None
    files: tuple[str, ...] | None
    skipped: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    recipe: Recipe | None

    def whole(self, samples: HeldSamples) -> CalibrationSet:
        """The set with its samples."""
        return CalibrationSet(
            self.name,
            self.inputs,
            samples,
            sources=self.sources,
            labels=self.labels,
            files=self.files,
            skipped=self.skipped,
            warnings=self.warnings,
        )


@dataclass(frozen=True, eq=False)
class ImageParcel:
    """A calibration set as a `Payload`.

    Attributes:
        images: the set.
        print: its fingerprint.
    """

    images: CalibrationSet
    print: str

    @functools.cached_property
    def facts(self) -> _Facts:
        """What is sent with the samples."""
        own = self.images
        return _Facts(
            own.name,
            own.inputs,
            own.sources,
            own.labels,
            own.files,
            own.skipped,
            own.warnings,
            own.recipe,
        )

    @property
    def key(self) -> str:
        """A hash of samples, labels, and how they are called."""
        f = self.facts
        named = repr((f.name, f.inputs, f.sources, f.files, f.skipped, f.warnings))
        return f"images {self.print} {hashlib.sha256(named.encode()).hexdigest()[:16]}"

    @property
    def fetch(self) -> Reach | None:
        """Opens the set where this process found it, if that was a path or a URL."""
        if self.images.origin is None:
            return None
        indices = self.images.indices
        return functools.partial(_open_again, self.images.origin, self.facts, indices, self.print)

    def parts(self) -> Iterator[Arrays]:
        """Decoded samples, before the arithmetic of the recipe."""
        return self.images.raw(_CHUNK)

    @staticmethod
    def keep(part: Any) -> Any:
        """Large arrays wait in temporary files."""
        return {name: _outside(array) for name, array in part.items()}

    @property
    def build(self) -> Build:
        """See `Payload`."""
        return functools.partial(_assemble, self.facts)


class HeldSamples:
    """Samples (see `calibration.samples.Samples`) that were sent in parts."""

    def __init__(self, parts: Sequence[Arrays], recipe: Recipe | None) -> None:
        self._parts = list(parts)
        self.recipe = recipe

    def __len__(self) -> int:
        return sum(len(next(iter(part.values()))) for part in self._parts)

    def read(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """See `Samples`."""
        raw = self.raw(indices)
        if self.recipe is None:
            return raw
        return {name: normalize(pixels, self.recipe) for name, pixels in raw.items()}

    def raw(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """See `Samples`."""
        places = [divmod(index, _CHUNK) for index in indices]
        names = self._parts[0]
        return {name: np.stack([self._parts[p][name][i] for p, i in places]) for name in names}


def _assemble(facts: _Facts, parts: list[Arrays]) -> CalibrationSet:
    return facts.whole(HeldSamples(parts, facts.recipe))


def _open_again(
    origin: Origin, facts: _Facts, indices: npt.NDArray[np.intp], fingerprint: str
) -> CalibrationSet:
    """The same set, from where it is.

    Raises:
        ImageSetError: what is there is something else.
        OnnxEsnError: it cannot be read.
    """
    found = open_set(origin.place, facts.inputs, recipe=origin.recipe)
    found.labels = None
    if len(indices) != len(found) or (indices != np.arange(len(found))).any():
        found = found.subset(indices)
    found.name, found.labels = facts.name, facts.labels
    if fingerprint_set(found) != fingerprint:
        raise ImageSetError(f"{origin.place}: holds other images there")
    return found


def _outside(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.nbytes < LEAST:
        return array
    path = new_file(".npy")
    with writing_temporary():
        np.save(path, array)
    mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    weakref.finalize(mapped, path.unlink, missing_ok=True)
    return mapped
