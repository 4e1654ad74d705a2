"""Weights that stay in the file of external data until somebody asks for them.

A tensor that is left outside carries the folder of its file (`basepath`, a key that ONNX has for
this) beside the relative name; it is read anew each time, and nobody holds it afterwards.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_tensor,
    uses_external_data,
)

from onnx_esn.errors import ModelError
from onnx_esn.shelf import LEAST, new_file
from onnx_esn.temporary import writing_temporary

_LEAST = LEAST  # bytes that are worth it
_LONG = 1 << 13  # values of a tensor that is not asked for its size
_PACKED = {
    TensorProto.UINT4, TensorProto.INT4, TensorProto.FLOAT4E2M1, TensorProto.STRING,
    *(getattr(TensorProto, n) for n in ("UINT2", "INT2") if hasattr(TensorProto, n)),
}  # fmt: skip


def leave_outside(model: onnx.ModelProto, folder: Path) -> None:
    """Give large tensors that were not loaded their folder; load the others.

    Raises:
        ModelError: the file of a tensor is missing or too short, or not in the folder.
    """
    for tensor in model.graph.initializer:
        if not uses_external_data(tensor):
            continue
        if len(tensor.dims) < 2 or tensor.data_type in _PACKED or _bytes(tensor) < _LEAST:
            load_external_data_for_tensor(tensor, str(folder))
            tensor.ClearField("data_location")
            del tensor.external_data[:]
            continue
        path, offset = _place(tensor, folder)
        if path.stat().st_size < offset + _bytes(tensor):
            raise ModelError(f"{path}: too short for the weight {tensor.name!r}")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"{path}: the weight {tensor.name!r} lies outside the model's folder")
        tensor.external_data.add(key="basepath", value=str(folder.resolve()))


def is_outside(tensor: onnx.TensorProto) -> bool:
    """Whether the values of a tensor are in a file, and which is known."""
    return _folder(tensor) is not None


def any_outside(model: onnx.ModelProto) -> bool:
    """Whether a model has such tensors."""
    return any(is_outside(tensor) for tensor in model.graph.initializer)


def tensor_values(tensor: onnx.TensorProto) -> npt.NDArray[Any]:
    """The values of a tensor, wherever they are; read-only where they are in the tensor."""
    folder = _folder(tensor)
    if folder is None:
        return numpy_helper.to_array(tensor)
    path, offset = _place(tensor, folder)
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    if np.dtype(kind).byteorder == ">":
        raise ModelError(f"{path}: needs a little-endian machine")
    values = np.fromfile(path, kind, math.prod(tensor.dims), offset=offset)
    return values.reshape(tuple(tensor.dims))


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that a tensor takes, wherever its values are: those it would take with them inside."""
    # Protobuf writes out what it is asked the size of: a large tensor is asked without its values.
    if is_outside(tensor):
        light = onnx.TensorProto()
        light.CopyFrom(tensor)
        forget_place(light)  # how long the name of a temporary file is says nothing
    elif _is_long(tensor):
        light = onnx.TensorProto(
            name=tensor.name, data_type=tensor.data_type, dims=tensor.dims,
            metadata_props=tensor.metadata_props,
        )  # fmt: skip
        if tensor.HasField("doc_string"):
            light.doc_string = tensor.doc_string
    else:
        return int(tensor.ByteSize())
    values = _bytes(tensor)
    length = max(1, -(-values.bit_length() // 7))  # a varint
    return int(light.ByteSize()) + 1 + length + values


def _is_long(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor holds many values, as bytes, in a type of whole ones."""
    whole = tensor.data_type not in _PACKED and not tensor.HasField("data_location")
    return whole and math.prod(tensor.dims) > _LONG and tensor.HasField("raw_data")


def forget_place(tensor: onnx.TensorProto) -> None:
    """The tensor gets values of its own."""
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def put_values(
    tensor: onnx.TensorProto, values: npt.NDArray[Any], *, outside: bool = False
) -> None:
    """Give a tensor of this shape other values, in the file's own type and byte order.

    What was large and outside goes to a file of its own again, in a folder for temporary files
    (`TMPDIR`) that goes when the process ends: to be held in memory is what it was spared.

    Args:
        tensor: the tensor.
        values: its values.
        outside: whether to do so though it was not outside itself.
    """
    outside = (outside or is_outside(tensor)) and values.nbytes >= _LEAST
    for name in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(name)
    forget_place(tensor)
    if not outside:
        tensor.raw_data = values.tobytes()
        return
    tensor.ClearField("raw_data")
    path = new_file(".data")
    with writing_temporary():
        values.tofile(path)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": path.name, "basepath": str(path.parent)}.items():
        tensor.external_data.add(key=key, value=value)


def folders(tensors: Iterable[onnx.TensorProto]) -> set[Path]:
    """Where the tensors are that are left outside."""
    return {folder for tensor in tensors if (folder := _folder(tensor)) is not None}


def common_folder(model: onnx.ModelProto) -> Path | None:
    """The folder that all files of weights are in or below; None where there is none."""
    try:
        places = sorted(str(place) for place in folders(model.graph.initializer))
        return Path(os.path.commonpath(places)) if places else None
    except ValueError:  # on several drives
        return None


def as_in_folder(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The model as it would be written to a folder that its weights are in or below.

    It has no large tensor.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        place = _folder(tensor)
        kept = [(e.key, e.value) for e in tensor.external_data if e.key != "basepath"]
        del tensor.external_data[:]
        for key, value in kept:
            if key == "location" and place is not None:
                value = (place.relative_to(folder) / value).as_posix()
            tensor.external_data.add(key=key, value=value)
    return copy


def brought_inside(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that holds all its weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if is_outside(tensor):
            raw = tensor_values(tensor).tobytes()
            forget_place(tensor)
            tensor.raw_data = raw
    return copy


def _folder(tensor: onnx.TensorProto) -> Path | None:
    if not uses_external_data(tensor):
        return None
    return next((Path(e.value) for e in tensor.external_data if e.key == "basepath"), None)


def _place(tensor: onnx.TensorProto, folder: Path) -> tuple[Path, int]:
    info = ExternalDataInfo(tensor)
    path = folder / info.location
    if not path.is_file():
        raise ModelError(f"{path}: no such file; it has the weight {tensor.name!r}")
    return path, info.offset or 0


def _bytes(tensor: onnx.TensorProto) -> int:
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    size: int = math.prod(tensor.dims) * kind.itemsize
    return size
