"""Weights in a file beside the model, which names them by a relative path."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from onnx_esn.companions import data_name
from onnx_esn.file_search import holds
from onnx_esn.graph.stored import without_stored
from onnx_esn.outside import is_outside, tensor_values

_LEAST = 1024  # bytes of a tensor that is worth an entry
# Where tensors begin: on a cache line, large ones on a page, so that they can be mapped to memory.
_LINE, _PAGE, _LARGE = 64, 4096, 1 << 16
# A file that leaves its weights to another one is small; to look into a larger one takes memory.
_MOST_WITHOUT_WEIGHTS = 1 << 28
_KEY = b"location"  # what every entry for another file has


def write_with_data(model: onnx.ModelProto, path: Path, data: Path | None = None) -> None:
    """Write a model, its larger initializers one by one to `data`, a file in the same folder.

    Nothing is copied but the graph and one tensor at a time.

    Args:
        model: the model.
        path: its file.
        data: None: called after what is in it, see `targets.data_name`.
    """
    light = without_stored(model)
    written = data or path.with_name(f"{path.name}.data")
    digest = hashlib.sha256()
    places = []
    with written.open("wb") as file:
        for tensor in model.graph.initializer:
            raw = _raw(tensor)
            if raw is None:
                light.graph.initializer.append(tensor)
                continue
            entry = light.graph.initializer.add(
                name=tensor.name, data_type=tensor.data_type, dims=tensor.dims
            )
            if tensor.HasField("doc_string"):
                entry.doc_string = tensor.doc_string
            entry.metadata_props.extend(tensor.metadata_props)
            entry.data_location = TensorProto.EXTERNAL
            for part in (bytes(-file.tell() % _alignment(len(raw))), raw):
                digest.update(part)
                file.write(part)
            places.append(entry.external_data.add(key="location"))
            for key, value in {"offset": file.tell() - len(raw), "length": len(raw)}.items():
                entry.external_data.add(key=key, value=str(value))
    if data is None:
        written = written.rename(path.with_name(data_name(path.name, digest.hexdigest())))
    for place in places:
        place.value = written.name
    path.write_bytes(light.SerializeToString(deterministic=True))


def has_data_outside(path: str | os.PathLike[str]) -> bool:
    """Whether a model's file leaves weights to other files."""
    if not _may_have(Path(path)):
        return False
    model = onnx.load(path, load_external_data=False)
    return any(uses_external_data(tensor) for tensor in model.graph.initializer)


def data_files(path: str | os.PathLike[str]) -> set[Path]:
    """The files that a model's file leaves weights to; none where it cannot be read."""
    path = Path(path)
    try:
        if not _may_have(path):
            return set()
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError):
        return set()
    outside = [t for t in model.graph.initializer if uses_external_data(t)]
    places = {e.value for tensor in outside for e in tensor.external_data if e.key == "location"}
    return {path.parent / place for place in places if "\0" not in place}


def _may_have(path: Path) -> bool:
    """Whether a file may leave weights to others: it is looked through faster than it is parsed."""
    if not path.is_file() or path.stat().st_size > _MOST_WITHOUT_WEIGHTS:
        return False
    state = path.stat()
    return _has_key(path.absolute(), (state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=4)
def _has_key(path: Path, state: tuple[int, ...]) -> bool:
    return holds(path, _KEY)


def _raw(tensor: onnx.TensorProto) -> bytes | memoryview | None:
    """The bytes of a tensor that is to be written outside; None for one that stays."""
    if is_outside(tensor):
        return tensor_values(tensor).reshape(-1).view(np.uint8).data
    if tensor.ByteSize() < _LEAST or tensor.data_type == TensorProto.STRING:
        return None
    if tensor.HasField("raw_data"):
        raw: bytes = tensor.raw_data
        return raw
    converted: bytes = numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
    return converted


def _alignment(size: int) -> int:
    """Where a tensor of `size` bytes may begin: at multiples of this."""
    return _PAGE if size >= _LARGE else _LINE
