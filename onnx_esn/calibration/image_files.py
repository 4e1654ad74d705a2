"""Find the images of a folder, in an order that no file system can change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from onnx_esn.errors import ImageSetError

from .remote import Location, RemotePath, located

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff")
)
_Identity = tuple[int, int]  # device and inode
# Two links in each of thirty folders make a billion ways to the last one.
MOST_FOLDERS = 20_000


def find_images(folder: str | Location) -> list[str]:
    """Image files at any depth, as POSIX paths relative to ``folder``, sorted.

    Hidden files and folders are left out. Links to folders are followed, except back into a folder
    that is being walked.

    Raises:
        ImageSetError: the folder, or one below it, cannot be listed; or there are more than
            `MOST_FOLDERS`.
    """
    folder = located(folder)
    if isinstance(folder, RemotePath):
        return sorted(name for name in folder.find() if _is_wanted(name))
    return sorted(_walk(folder))


def _is_wanted(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") or not part for part in parts)
    return not hidden and Path(parts[-1]).suffix.lower() in IMAGE_SUFFIXES


def _walk(start: Path) -> Iterator[str]:
    """Files below a folder; without recursion, for folders may be nested as deep as a path is long.

    A folder is on its own path where a link leads back into it.
    """
    waiting: list[tuple[str, tuple[_Identity, ...]]] = [("", ())]
    folders = 0
    while waiting:
        prefix, above = waiting.pop()
        folders += 1
        if folders > MOST_FOLDERS:
            raise ImageSetError(
                f"{start}: holds more than {MOST_FOLDERS} folders, by way of links perhaps; name a "
                "smaller one"
            )
        folder = start / prefix
        try:
            status = folder.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                continue
            with os.scandir(folder) as listing:
                entries = [(entry.name, _is_folder(entry)) for entry in listing]
        except OSError as error:
            raise ImageSetError(
                f"{folder}: cannot be listed ({error.strerror or error})"
            ) from error
        for name, is_folder in entries:
            if name.startswith("."):
                continue
            if is_folder:
                waiting.append((f"{prefix}{name}/", (*above, identity)))
            elif Path(name).suffix.lower() in IMAGE_SUFFIXES:
                # A dangling link is listed too: it ought to be reported, not overlooked.
                yield prefix + name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
