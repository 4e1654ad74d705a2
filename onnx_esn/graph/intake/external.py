"""Weights in other files: in the model's folder, regular files, and long enough.

A model says itself where its weights are. Whoever made it could point at any file that the reader
may open, and get it back within a result.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx.external_data_helper import uses_external_data

from onnx_esn.errors import ModelError
from onnx_esn.graph.intake.limits import SHARED_BYTES
from onnx_esn.graph.intake.tensors import bits_of, bytes_of, check_type, shape_text
from onnx_esn.graph.intake.walk import all_tensors

_DIGITS = 19  # of an offset: 2^63 has no more


def check_external(model: onnx.ModelProto, folder: Path, name: str) -> None:
    """Check where the tensors of a model lie that was read without them, and put it in order.

    Each gets a length, and loses what files have no business to say (`basepath`, a folder).

    Args:
        model: the model; changed.
        folder: the folder of its file.
        name: its file, for messages.

    Raises:
        ModelError: a place outside of the folder, behind a link, no regular file, or a file that
            is too short.
    """
    outside = [t for t in all_tensors(model) if uses_external_data(t)]
    sizes: dict[Path, int] = {}
    total = 0
    for tensor in outside:
        check_type(tensor, name)
        where = f"{name}: the weight {tensor.name!r}"
        if bits_of(tensor.data_type) is None:
            raise ModelError(f"{where} is text, which cannot be in a file of its own")
        given = {e.key: e.value for e in tensor.external_data}
        path = folder / _location(given.get("location", ""), where)
        if path not in sizes:
            sizes[path] = _size(path, folder, where)
        need = bytes_of(tensor)
        offset = _number(given.get("offset", "0"), "offset", where)
        length = _number(given.get("length", str(need)), "length", where)
        if length != need:
            raise ModelError(
                f"{where} has {length} bytes in {path}, but {shape_text(tensor.dims)} takes {need}"
            )
        if offset + need > sizes[path]:
            raise ModelError(
                f"{where} ends at byte {offset + need} of {path}: too short, it has "
                f"{sizes[path]}; copy it again"
            )
        total += need
        del tensor.external_data[:]
        for key, value in {"location": given["location"], "offset": offset, "length": need}.items():
            tensor.external_data.add(key=key, value=str(value))
    held = sum(sizes.values())
    if total > 8 * held + SHARED_BYTES:
        raise ModelError(
            f"{name}: its weights take {total} bytes from files that hold {held}; a model this "
            "small cannot be that large: export it again"
        )


def _location(given: str, where: str) -> str:
    if not given or "\0" in given:
        raise ModelError(f"{where} is in another file, but its location is {given!r}")
    posix, windows = PurePosixPath(given), PureWindowsPath(given)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ModelError(
            f"{where} is said to be in {given!r}, outside of the model's folder; only files in it "
            "are read: copy the file there and correct the location"
        )
    return given


def _size(path: Path, folder: Path, where: str) -> int:
    """Bytes of a regular file that is no link, nor behind one."""
    try:
        status = path.lstat()
    except FileNotFoundError as error:
        raise ModelError(f"{where} is in {path}: no such file; copy it there") from error
    except OSError as error:
        raise ModelError(f"{where} is in {path}: {error.strerror or error}") from error
    if stat.S_ISLNK(status.st_mode) or path.resolve() != folder.resolve() / os.path.normpath(
        path.relative_to(folder)
    ):
        raise ModelError(
            f"{where} is in {path}, a symbolic link or behind one; put the file itself there"
        )
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{where} is in {path}: not a regular file")
    return int(status.st_size)


def _number(text: str, what: str, where: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > _DIGITS:
        raise ModelError(f"{where} is in another file, at the {what} {text[:40]!r}: no number")
    return int(text)
