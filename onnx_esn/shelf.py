"""A folder for temporary files of weights that are not to be held in memory."""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST = 1 << 20  # bytes that are worth a file
_NUMBERS = itertools.count()


@functools.cache
def shelf() -> Path:
    """The folder (in `TMPDIR`); it goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="onnx-esn-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def new_file(suffix: str) -> Path:
    """A path in it that nobody else has."""
    return shelf() / f"{next(_NUMBERS)}{suffix}"


class Shelved:
    """An array that is read again: a large one out of a file, which goes with this.

    Args:
        values: the array.
        outside: whether a large one goes to a file.
    """

    def __init__(self, values: npt.NDArray[Any], *, outside: bool) -> None:
        self._values: npt.NDArray[Any] | None = values
        if outside and values.nbytes >= LEAST:
            self._path = new_file(".npy")
            np.save(self._path, values)
            self._values = None
            weakref.finalize(self, self._path.unlink, missing_ok=True)

    def __call__(self) -> npt.NDArray[Any]:
        """Its values."""
        return np.load(self._path) if self._values is None else self._values
