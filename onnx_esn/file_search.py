"""Whether a file holds some bytes, without holding the file."""

from __future__ import annotations

from pathlib import Path

_CHUNK = 1 << 20  # what stays in the cache while it is looked through


def holds(path: Path, sought: bytes) -> bool:
    """Whether `sought` is anywhere in the file.

    Raises:
        OSError: it cannot be read.
    """
    tail = b""
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            text = tail + part
            if sought in text:
                return True
            tail = text[len(text) - len(sought) + 1 :] if len(sought) > 1 else b""
    return not sought
