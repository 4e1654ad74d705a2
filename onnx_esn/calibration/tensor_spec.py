"""What a model wants to be fed: the name, element type and shape of each input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_esn.errors import ImageSetError, ModelError

Dim = int | str | None


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    A dimension is an ``int`` where fixed, a ``str`` where it has a symbol, ``None`` where nothing
    is known. An empty ``shape`` also stands for "rank unknown", which every array fits.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dim, ...]

    @property
    def fixed_batch(self) -> int | None:
        """The batch size the model insists on, or None where it is free."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, int) else None

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether samples of ``shape`` can be fed; the first axis counts them and is free."""
        if not self.shape:
            return True
        if len(shape) != len(self.shape):
            return False
        pairs = zip(shape[1:], self.shape[1:], strict=True)
        return all(not isinstance(want, int) or want == have for have, want in pairs)

    def describe_shape(self) -> str:
        """The shape for an error message, such as ``N x 3 x 224 x 224``."""
        return format_shape(self.shape) if self.shape else "of unknown rank"


def format_shape(shape: Sequence[Dim]) -> str:
    """``(None, 3, 8)`` as ``? x 3 x 8``."""
    return " x ".join("?" if dim is None else str(dim) for dim in shape) or "scalar"


def check_shape(shape: Sequence[int], spec: TensorSpec, origin: str, hint: str = "") -> None:
    """Refuse samples (``N x …``) that the model's input cannot take.

    Raises:
        ImageSetError: naming both shapes.
    """
    if not spec.fits(shape):
        have = " x ".join(["N", *map(str, shape[1:])]) if shape else "scalar"
        raise ImageSetError(
            f"{origin}: samples have the shape {have}, but the model input '{spec.name}' is "
            f"{spec.describe_shape()}{hint}"
        )


def check_fixed_batches(inputs: Sequence[TensorSpec]) -> None:
    """Refuse inputs that insist on different batch sizes.

    Raises:
        ImageSetError: naming the inputs.
    """
    sizes = {spec.fixed_batch: spec for spec in inputs if spec.fixed_batch is not None}
    if len(sizes) > 1:
        listed = ", ".join(f"'{spec.name}' {size}" for size, spec in sizes.items())
        raise ImageSetError(f"the model's inputs have different fixed batch sizes: {listed}")


def input_specs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """The inputs a caller must feed, read from the model without loading it into a runtime.

    Initializers that old models (IR 3) also list as inputs are left out.

    Raises:
        ModelError: an input is not a tensor (a sequence, a map, …) or has no element type.
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    stored.update(tensor.values.name for tensor in graph.sparse_initializer)
    return tuple(_spec(value) for value in graph.input if value.name not in stored)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.elem_type:
        kind = value.type.WhichOneof("value") or "untyped value"
        raise ModelError(
            f"input '{value.name}' of the model is not a tensor of known type ({kind}); "
            "only tensor inputs can be fed from images or arrays"
        )
    tensor = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return TensorSpec(value.name, dtype, tuple(_dim(dim) for dim in tensor.shape.dim))


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    # Some exporters write 0 or -1 where they mean "dynamic".
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    return dim.dim_param or None
