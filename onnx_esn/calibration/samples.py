"""Where the samples of a set come from, behind one small interface: arrays or image files."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .images import UnreadableImageError, load_pixels, normalize
from .pixel_file import PixelFile
from .recipe import Recipe
from .remote import THREADS, Location, RemotePath

log = logging.getLogger(__name__)

# Decoded pixels are kept up to this many bytes, since several passes run over one set.
CACHE_BYTES = 256 * 2**20
# Skipped images that are named without being asked for.
_SAID = 20
# Images decoded between two looks at the cache's size.
_CHUNK = 64


class Samples(Protocol):
    """Numbered samples, read on demand."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """The samples stacked along axis 0, by the name of the input they were made for."""
        ...

    def raw(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """The same before `recipe` is applied to them: what takes the fewest bytes to send."""
        ...

    @property
    def recipe(self) -> Recipe | None:
        """Whose arithmetic (`normalize`) makes of `raw` what `read` gives; None: it is that."""
        ...


class ArraySamples:
    """Ready tensors, N first; a memory-mapped array stays on disk until it is read."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._arrays = dict(arrays)

    recipe: Recipe | None = None

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def read(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """See `Samples`."""
        rows = np.asarray(indices, dtype=np.intp)
        return {name: np.asarray(array[rows]) for name, array in self._arrays.items()}

    raw = read


class ImageSamples:
    """Image files decoded by a recipe; `scan` must run first and keeps what is readable."""

    def __init__(self, folder: Location, name: str, recipe: Recipe) -> None:
        self._folder = folder
        self._name = name
        self.recipe = recipe
        self._cache: dict[int, npt.NDArray[Any]] = {}
        self._outside = PixelFile()
        self.files: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        self.shapes: dict[tuple[int, ...], str] = {}
        """Each sample shape that occurs after preprocessing, with the first file that has it."""

    def __len__(self) -> int:
        return len(self.files)

    def scan(self, files: Sequence[str]) -> None:
        """Decode every file once: only that tells which ones are readable, and of what shape."""
        room = CACHE_BYTES
        remote = isinstance(self._folder, RemotePath)
        workers = THREADS if remote else min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers, thread_name_prefix="onnx-esn-decode") as pool:
            for start in range(0, len(files), _CHUNK):
                chunk = files[start : start + _CHUNK]
                for file, pixels in zip(chunk, pool.map(self._try, chunk), strict=True):
                    if isinstance(pixels, str):
                        self.skipped.append((file, pixels))
                        level = logging.WARNING if len(self.skipped) <= _SAID else logging.INFO
                        log.log(level, "%s: skipped: %s", self._folder / file, pixels)
                        if len(self.skipped) == _SAID + 1:
                            log.warning("%s: more are skipped (-v names them)", self._folder)
                        continue
                    height, width, channels = pixels.shape
                    nchw = self.recipe.layout == "nchw"
                    shape = (channels, height, width) if nchw else (height, width, channels)
                    self.shapes.setdefault(shape, file)
                    if pixels.nbytes <= room:
                        room -= pixels.nbytes
                        self._cache[len(self.files)] = pixels
                    elif remote:  # each file comes over the network once
                        self._outside.put(len(self.files), pixels)
                    self.files.append(file)

    def read(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """See `Samples`; float32."""
        return {name: normalize(p, self.recipe) for name, p in self.raw(indices).items()}

    def raw(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """See `Samples`; ``N x H x W x C``, 0..255."""
        return {self._name: np.stack([self._pixels(index) for index in indices])}

    def _pixels(self, index: int) -> npt.NDArray[Any]:
        cached = self._cache.get(index)
        if cached is None:
            cached = self._outside.get(index)
        if cached is not None:
            return cached
        path = self._folder / self.files[index]
        try:
            return load_pixels(path, self.recipe)
        except UnreadableImageError as error:
            raise UnreadableImageError(
                f"{path}: could be read when the set was opened, but no longer: {error}"
            ) from error

    def _try(self, file: str) -> npt.NDArray[Any] | str:
        try:
            return load_pixels(self._folder / file, self.recipe)
        except UnreadableImageError as error:
            return str(error)
