"""Archives of arrays (``.npz``): what they declare, before anything is unpacked.

numpy makes room for an array before it reads it, and a megabyte of an archive can be a gigabyte of
zeros.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

_PLENTY = 1 << 30  # bytes that any archive may unpack to
_RATIO = 100  # and how many times its own size beyond that
_HEADER = 1 << 16  # bytes that the header of an array takes at most


def check_archive(path: Path) -> None:
    """Refuse an archive whose arrays are not what they declare, or that swells when unpacked.

    Raises:
        ValueError, OSError, zipfile.BadZipFile: what is wrong with it.
    """
    if not zipfile.is_zipfile(path):
        return  # numpy says so, in its own words
    with zipfile.ZipFile(path) as archive:
        total = sum(info.file_size for info in archive.infolist())
        if total > _PLENTY and total > _RATIO * path.stat().st_size:
            raise ValueError(
                f"it unpacks to {total} bytes, {total // max(1, path.stat().st_size)} times its "
                "size; store it without compression"
            )
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as stream:
                version = np.lib.format.read_magic(stream)
                read = {1: np.lib.format.read_array_header_1_0}.get(
                    version[0], np.lib.format.read_array_header_2_0
                )
                shape, _, kind = read(stream, max_header_size=_HEADER)
            if kind.hasobject:
                continue  # refused when it is read: allow_pickle
            need = math.prod(shape) * kind.itemsize
            if need > info.file_size:
                raise ValueError(
                    f"{info.filename!r} declares {need} bytes, but holds {info.file_size}"
                )
