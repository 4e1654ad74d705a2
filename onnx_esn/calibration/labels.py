"""Class labels of an image set: a CSV file with the columns ``file,label``, or an array."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import ImageSetError, LabelsError

from .arrays import load_arrays
from .remote import Location, located

Labels = npt.NDArray[np.int64]
COLUMNS = ("file", "label")


def load_labels(path: str | Location, files: Sequence[str], skipped: Sequence[str] = ()) -> Labels:
    """The label of each of ``files``, in their order: int64, shape ``(len(files),)``.

    Args:
        path: a CSV file with the columns ``file`` and ``label``; more columns are ignored.
        files: POSIX paths relative to the image folder. A row names a file by that path, or by
            any shorter or longer path that ends alike, if only one file is meant.
        skipped: files that could not be read; their rows are passed over.

    Raises:
        LabelsError: with the line number: an unknown or ambiguous file, a second label for one
            file, a label that is not a whole number from 0; or files left without a label.
    """
    path = located(path)
    names = [*files, *skipped]
    exact = {name: index for index, name in enumerate(names)}
    by_base: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        by_base.setdefault(PurePosixPath(name).name, []).append(index)
    labels: dict[int, int] = {}
    lines: dict[int, int] = {}
    for line, name, text in _rows(path):
        where = f"{path}, line {line}"
        index = _find(name, names, exact, by_base, where)
        if index in lines:
            raise LabelsError(f"{where}: '{name}' already has a label in line {lines[index]}")
        lines[index] = line
        labels[index] = _parse(text, where)
    missing = [name for index, name in enumerate(files) if index not in labels]
    if missing:
        raise LabelsError(
            f"{path}: {len(missing)} of {len(files)} images have no label, first '{missing[0]}'"
        )
    return np.array([labels[index] for index in range(len(files))], dtype=np.int64)


def load_label_array(source: str | Path | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Labels as they are in an array or a ``.npy`` file; `check_labels` comes next.

    Raises:
        LabelsError: the file cannot be read.
    """
    if not isinstance(source, (str, Path)):
        return np.asarray(source)
    try:
        return np.asarray(load_arrays(located(source)))
    except ImageSetError as error:
        raise LabelsError(str(error)) from error


def check_labels(values: npt.ArrayLike, count: int, origin: str) -> Labels:
    """Labels that came as an array, as int64 of shape ``(count,)``.

    Raises:
        LabelsError: not whole numbers from 0, or not one for each sample.
    """
    array: npt.NDArray[Any] = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (count,):
        raise LabelsError(
            f"{origin}: labels have the shape {array.shape}; {count} samples need ({count},)"
        )
    if array.dtype.kind not in "iu":
        raise LabelsError(
            f"{origin}: labels have the type {array.dtype}; class indices are integers"
        )
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        raise LabelsError(f"{origin}: label {array.min()} .. {array.max()} is not a class index")
    return array.astype(np.int64)


def _rows(path: Location) -> list[tuple[int, str, str]]:
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [cell.strip().lower() for cell in next(reader, [])]
            if not set(COLUMNS) <= set(header):
                raise LabelsError(
                    f"{path}, line 1: the header must name the columns file,label; "
                    f"it is '{','.join(header)}'"
                )
            columns = [header.index(name) for name in COLUMNS]
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) <= max(columns):
                    raise LabelsError(f"{path}, line {reader.line_num}: needs a file and a label")
                name, label = (row[column].strip() for column in columns)
                rows.append((reader.line_num, name, label))
    except OSError as error:
        raise LabelsError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise LabelsError(f"{path}: is not a CSV file in UTF-8: {error}") from error
    return rows


def _find(
    name: str, names: list[str], exact: dict[str, int], by_base: dict[str, list[int]], where: str
) -> int:
    wanted = PurePosixPath(name.replace("\\", "/"))
    if str(wanted) in exact:
        return exact[str(wanted)]
    same = [
        index
        for index in by_base.get(wanted.name, [])
        if _ends_alike(wanted.parts, PurePosixPath(names[index]).parts)
    ]
    if not same:
        raise LabelsError(f"{where}: '{name}' is not an image of the set")
    if len(same) > 1:
        raise LabelsError(
            f"{where}: '{name}' could be '{names[same[0]]}' or '{names[same[1]]}'; "
            "give the path relative to the image folder"
        )
    return same[0]


def _ends_alike(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    shared = min(len(left), len(right))
    return left[-shared:] == right[-shared:]


def _parse(text: str, where: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) < 20  # of int64
    if not digits or int(text) > np.iinfo(np.int64).max:
        raise LabelsError(f"{where}: label '{text[:80]}' is not a whole number from 0")
    return int(text)
