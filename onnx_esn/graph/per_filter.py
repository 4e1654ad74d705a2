"""Constants that bring one number to each filter of a layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_esn.graph.layers import Layer

Floats = NDArray[np.float64]


def trailing_axes(layer: Layer) -> int:
    """Number of axes behind that of the filters in the layer's output."""
    if layer.op in ("Gemm", "MatMul"):
        return 0 if layer.slot == 1 else 1
    return len(layer.kernel)


def per_filter(value: NDArray[np.generic], filters: int, trailing: int) -> Floats | None:
    """The numbers (M,) that a constant brings to the filters; None where it does not vary so."""
    shape = (1,) * (trailing + 1 - value.ndim) + value.shape
    axis = len(shape) - 1 - trailing
    if any(n != 1 for i, n in enumerate(shape) if i != axis) or shape[axis] not in (1, filters):
        return None
    return np.broadcast_to(value.reshape(-1).astype(np.float64), filters)
