"""Weights in a file beside the model, which names them by a relative path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from onnx_esn.graph.stored import without_stored
from onnx_esn.outside import is_outside, tensor_values

_LEAST = 1024  # bytes of a tensor that is worth an entry
# Where tensors begin: on a cache line, large ones on a page, so that they can be mapped to memory.
_LINE, _PAGE, _LARGE = 64, 4096, 1 << 16
# A file that leaves its weights to another one is small; to look into a larger one takes memory.
_MOST_WITHOUT_WEIGHTS = 1 << 28


def write_with_data(model: onnx.ModelProto, path: Path, data: Path) -> None:
    """Write a model, its larger initializers one by one to `data`, a file in the same folder.

    Nothing is copied but the graph and one tensor at a time.
    """
    light = without_stored(model)
    with data.open("wb") as file:
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
            offset = _aligned(file, len(raw))
            file.write(raw)
            where = {"location": data.name, "offset": offset, "length": len(raw)}
            for key, value in where.items():
                entry.external_data.add(key=key, value=str(value))
    path.write_bytes(light.SerializeToString(deterministic=True))


def has_data_outside(path: str | os.PathLike[str]) -> bool:
    """Whether a model's file leaves weights to other files."""
    if not Path(path).is_file() or Path(path).stat().st_size > _MOST_WITHOUT_WEIGHTS:
        return False
    model = onnx.load(path, load_external_data=False)
    return any(uses_external_data(tensor) for tensor in model.graph.initializer)


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


def _aligned(file: BinaryIO, size: int) -> int:
    """Fill the file up to where a tensor of `size` bytes may begin."""
    step = _PAGE if size >= _LARGE else _LINE
    file.write(bytes(-file.tell() % step))
    return file.tell()
