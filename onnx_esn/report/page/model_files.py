"""Which file it was: name, bytes and hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from onnx_esn.errors import ModelError
from onnx_esn.evaluation.costs import file_bytes

_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """A model on disk.

    Attributes:
        name: of the file.
        bytes: on disk, with external data.
        sha256: of the file itself, without external data.
    """

    name: str
    bytes: int
    sha256: str


def describe_file(path: Path) -> ModelFile:
    """Look at a model's file.

    Raises:
        ModelError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_AT_ONCE):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    return ModelFile(path.name, file_bytes(path), digest.hexdigest())
