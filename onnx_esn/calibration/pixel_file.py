"""Decoded images in one temporary file: for those that come from far and find no room in memory."""

from __future__ import annotations

import logging
import threading
import weakref
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import OutputError
from onnx_esn.shelf import new_file
from onnx_esn.temporary import writing_temporary

log = logging.getLogger(__name__)


class PixelFile:
    """Arrays by number; the file is made with the first and goes with this."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}
        self._file: BinaryIO | None = None
        self._end = 0
        self._full = False
        self._lock = threading.Lock()

    def put(self, number: int, pixels: npt.NDArray[Any]) -> None:
        """Keep an array; where the disk is full it is not kept, and will be fetched again."""
        if self._full:
            return
        try:
            if self._file is None:
                self._open()
            assert self._file is not None
            with self._lock, writing_temporary():
                self._file.seek(self._end)
                self._file.write(np.ascontiguousarray(pixels).data)
                self._file.flush()
        except OutputError as error:
            self._full = True
            log.warning("images are fetched again for each pass over them: %s", error)
            return
        self._places[number] = self._end, pixels.shape, pixels.dtype
        self._end += pixels.nbytes

    def get(self, number: int) -> npt.NDArray[Any] | None:
        """The array of a number, or None where there is none."""
        place = self._places.get(number)
        if place is None or self._file is None:
            return None
        offset, shape, dtype = place
        with self._lock:
            self._file.seek(offset)
            return np.fromfile(self._file, dtype, int(np.prod(shape))).reshape(shape)

    def _open(self) -> None:
        path = new_file(".pixels")
        with writing_temporary():
            self._file = path.open("w+b")
        weakref.finalize(self, _remove, self._file, path)


def _remove(file: BinaryIO, path: Path) -> None:
    file.close()
    path.unlink(missing_ok=True)
