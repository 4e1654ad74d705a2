"""Find the images of a folder, in an order that no file system can change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from onnx_esn.errors import ImageSetError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff")
)


def find_images(folder: str | Path) -> list[str]:
    """Image files at any depth, as POSIX paths relative to ``folder``, sorted.

    Hidden files and folders are left out. Links to folders are followed, except back into a folder
    that is being walked.

    Raises:
        ImageSetError: the folder, or one below it, cannot be listed.
    """
    folder = Path(folder)
    return sorted(_walk(folder, "", ()))


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError as error:
        raise ImageSetError(f"{folder}: cannot be listed ({error.strerror or error})") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", (*above, identity))
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            # A dangling link is listed too: it ought to be reported, not overlooked.
            yield prefix + entry.name
