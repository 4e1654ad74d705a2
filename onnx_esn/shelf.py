"""Temporary files of weights that are not to be held in memory."""

from __future__ import annotations

import itertools
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.temporary import process_folder, writing_temporary

LEAST = 1 << 20  # bytes that are worth a file
_NUMBERS = itertools.count()


def new_file(suffix: str) -> Path:
    """A path in the folder for temporary files that nobody else has; raises `OutputError`."""
    return process_folder() / f"{next(_NUMBERS)}{suffix}"


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
            with writing_temporary():
                np.save(self._path, values)
            self._values = None
            weakref.finalize(self, self._path.unlink, missing_ok=True)

    def __call__(self) -> npt.NDArray[Any]:
        """Its values."""
        return np.load(self._path) if self._values is None else self._values
