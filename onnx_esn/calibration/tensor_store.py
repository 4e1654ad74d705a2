"""Tensors of many batches, in memory up to a limit, then in temporary files."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import OutputError
from onnx_esn.temporary import new_folder

from .tensor_spec import TensorSpec

log = logging.getLogger(__name__)

# Left free on the disk for everybody else.
DISK_RESERVE = 2**30


class TensorStore:
    """Arrays by (batch, name). Use it in a ``with`` block, which removes the files.

    Args:
        memory_limit: bytes held in memory.
        disk_reserve: bytes that are left free on the disk; None never writes to disk.
    """

    def __init__(self, memory_limit: int, disk_reserve: int | None = DISK_RESERVE) -> None:
        self.memory_limit = memory_limit
        self._room = memory_limit
        self._reserve = disk_reserve
        self._arrays: dict[tuple[int, str], npt.NDArray[Any] | Path] = {}
        self._specs: dict[str, TensorSpec] = {}
        self._folder: Path | None = None
        self._written = 0
        self.spilled = 0
        """Bytes written to files so far."""

    def put(self, batch: int, tensors: Mapping[str, Any]) -> bool:
        """Keep tensors of a batch: all of them, or none and False where there is no room.

        Sequences, strings and what else is not an array of numbers cannot be kept either.
        """
        done: list[str] = []
        for name, value in tensors.items():
            place = self._place(value)
            if place is None:
                self.drop(batch, done)
                return False
            self._arrays[batch, name] = place
            self._describe(name, value)
            done.append(name)
        return True

    def get(self, batch: int, name: str) -> npt.NDArray[Any]:
        """A tensor that was kept."""
        place = self._arrays[batch, name]
        return np.load(place) if isinstance(place, Path) else place

    def drop(self, batch: int, names: list[str]) -> None:
        """Let tensors of a batch go; names that are not there are passed over."""
        for name in names:
            place = self._arrays.pop((batch, name), None)
            if isinstance(place, Path):
                place.unlink(missing_ok=True)
            elif place is not None:
                self._room += place.nbytes

    def spec(self, name: str) -> TensorSpec:
        """Type and shape of a tensor; a size that differs between batches is None."""
        return self._specs[name]

    def __enter__(self) -> TensorStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._arrays.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _place(self, value: Any) -> npt.NDArray[Any] | Path | None:
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            return None
        if value.nbytes <= self._room:
            self._room -= value.nbytes
            return value
        return self._write(value)

    def _write(self, value: npt.NDArray[Any]) -> Path | None:
        if self._reserve is None:
            return None
        try:
            if self._folder is None:
                self._folder = new_folder()
                log.info("tensors beyond the memory limit go to %s", self._folder)
            if shutil.disk_usage(self._folder).free - value.nbytes < self._reserve:
                return None
            path = self._folder / f"{self._written}.npy"
            self._written += 1
            np.save(path, value)
        except (OSError, OutputError) as error:  # the disk is full, or there is no temporary folder
            log.info("no room for temporary files: %s", error)
            return None
        self.spilled += value.nbytes
        return path

    def _describe(self, name: str, value: npt.NDArray[Any]) -> None:
        known = self._specs.get(name)
        if known is None:
            self._specs[name] = TensorSpec(name, value.dtype, value.shape)
        elif known.shape != value.shape:
            same_rank = len(known.shape) == value.ndim
            pairs = zip(known.shape, value.shape, strict=False)
            shape = tuple(a if a == b else None for a, b in pairs) if same_rank else ()
            self._specs[name] = TensorSpec(name, value.dtype, shape)
