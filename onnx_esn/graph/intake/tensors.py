"""Stored tensors: a known type, sizes that can be, and as many bytes as these take."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from onnx_esn.errors import ModelError
from onnx_esn.graph.intake.limits import AXES, GROWN_VALUES
from onnx_esn.graph.intake.walk import all_sparse, all_tensors

_PACKED = {
    name: bits
    for names, bits in ((("INT4", "UINT4", "FLOAT4E2M1"), 4), (("INT2", "UINT2"), 2))
    for name in names
}
# Where values are that are not stored as bytes.
_FIELDS = ["float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data"]


def check_tensors(model: onnx.ModelProto, name: str) -> None:
    """Refuse stored tensors whose bytes do not make up what they declare; raises `ModelError`."""
    for tensor in all_tensors(model):
        check_type(tensor, name)
        if not uses_external_data(tensor):
            _check_bytes(tensor, name)
    for sparse in all_sparse(model):
        _check_sparse(sparse, name)


def check_type(tensor: onnx.TensorProto, name: str) -> None:
    """Refuse an unknown element type, and sizes that no tensor has; raises `ModelError`."""
    where = f"{name}: the tensor {tensor.name!r}"
    if bits_of(tensor.data_type) is None and tensor.data_type != TensorProto.STRING:
        raise ModelError(
            f"{where} has the element type {tensor.data_type}, which this version of onnx does "
            "not know; update onnx, or export the model again"
        )
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"{where} has a negative size in {shape_text(tensor.dims)}")
    if len(tensor.dims) > AXES:
        raise ModelError(f"{where} has {len(tensor.dims)} axes; {AXES} is the most")


@cache
def bits_of(data_type: int) -> int | None:
    """Bits of one element of a type; None for text and for types that nobody knows."""
    try:
        name = str(TensorProto.DataType.Name(data_type))
    except ValueError:
        return None
    if name in ("UNDEFINED", "STRING"):
        return None
    if name in _PACKED:
        return _PACKED[name]
    return 8 * int(np.dtype(helper.tensor_dtype_to_np_dtype(data_type)).itemsize)


def bytes_of(tensor: onnx.TensorProto) -> int:
    """Bytes that the values of a tensor of a known type take, by its sizes."""
    bits: int = math.prod(tensor.dims) * (bits_of(tensor.data_type) or 0)
    return -(-bits // 8)


def shape_text(dims: object) -> str:
    """Sizes for a message, cut short where there are many."""
    sizes = [str(d) for d in dims]  # type: ignore[attr-defined]  # any sequence of numbers
    if len(sizes) > 8:
        sizes[6:-1] = ["…"]
    return " x ".join(sizes) or "a single value"


def _check_bytes(tensor: onnx.TensorProto, name: str) -> None:
    what = f"{shape_text(tensor.dims)} of {TensorProto.DataType.Name(tensor.data_type).lower()}"
    mend = "the file is damaged: export the model again"
    if tensor.HasField("raw_data") + sum(len(getattr(tensor, f)) > 0 for f in _FIELDS) > 1:
        raise ModelError(
            f"{name}: the tensor {tensor.name!r} holds values of several kinds; {mend}"
        )
    if tensor.data_type == TensorProto.STRING:
        have, need, unit = len(tensor.string_data), math.prod(tensor.dims), "texts"
    elif tensor.HasField("raw_data"):
        have, need, unit = len(tensor.raw_data), bytes_of(tensor), "bytes"
    else:
        field = helper.tensor_dtype_to_field(tensor.data_type)
        have, unit = len(getattr(tensor, field)), "numbers"
        need = _numbers(tensor)
        if not have:
            have, need, unit = 0, bytes_of(tensor), "bytes"
    if have != need:
        raise ModelError(
            f"{name}: the tensor {tensor.name!r} holds {have} {unit}, but {what} takes {need}; "
            f"{mend}"
        )


def _numbers(tensor: onnx.TensorProto) -> int:
    """How many numbers a tensor takes that is not stored as bytes."""
    count: int = math.prod(tensor.dims)
    bits = bits_of(tensor.data_type) or 8
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * count
    return count if bits >= 8 else -(-count * bits // 8)


def _check_sparse(sparse: onnx.SparseTensorProto, name: str) -> None:
    where = f"{name}: the sparse tensor {sparse.values.name!r}"
    if any(d < 0 for d in sparse.dims):
        raise ModelError(f"{where} has a negative size in {shape_text(sparse.dims)}")
    total = math.prod(sparse.dims)
    if total > GROWN_VALUES:
        raise ModelError(
            f"{where} would have {total} values when written out ({shape_text(sparse.dims)}); "
            f"{GROWN_VALUES} is the most: store it dense"
        )
    if uses_external_data(sparse.indices) or sparse.indices.data_type != TensorProto.INT64:
        raise ModelError(f"{where} has places that are no int64 stored in the model")
    places = numpy_helper.to_array(sparse.indices)
    limits = np.array(sparse.dims, np.int64) if places.ndim == 2 else np.array([total], np.int64)
    count = math.prod(sparse.values.dims)
    fits = places.ndim in (1, 2) and len(places) == count and len(sparse.values.dims) == 1
    if not fits or (places.ndim == 2 and places.shape[1] != len(sparse.dims)):
        raise ModelError(
            f"{where} has {count} values and places of the shape {shape_text(places.shape)}; "
            "a place for each is needed"
        )
    if places.size and (places.min() < 0 or (places >= limits).any()):
        raise ModelError(f"{where} has a place outside of {shape_text(sparse.dims)}")
