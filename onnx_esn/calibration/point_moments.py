"""Moments of one tensor of one batch, without the padding of a fixed batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.errors import OperationError, VerificationError
from onnx_esn.numerics.moments import Moments

from .row_sums import fast_moments

# Rows that repeat one sample agree to this share of the largest value.
_SAME = 1e-3


@dataclass(frozen=True)
class Point:
    """A tensor whose channels are measured, and where in the graph the correction acts.

    Attributes:
        name: the layer, for messages.
        tensor: the tensor to measure.
        axis: its channel axis; negative counts from the end.
        node: name of the first output of the node that reads the tensor and corrects it.
    """

    name: str
    tensor: str
    axis: int
    node: str


def point_moments(point: Point, value: npt.NDArray[Any], count: int, size: int) -> Moments:
    """Moments (C,) of a tensor of a batch of ``size`` samples, of which ``count`` are real.

    Raises:
        VerificationError: a value is NaN or infinite, or too large to square; names the layer.
        OperationError: the tensor has no such axis, or its padding cannot be told from samples.
    """
    if not isinstance(value, np.ndarray) or not -value.ndim <= point.axis < value.ndim:
        raise OperationError(
            f"{point.name}: its tensor '{point.tensor}' has no channel axis {point.axis}"
        )
    if count < size:
        value = _real_rows(point, value, count, size)
    try:
        return fast_moments(value, point.axis)
    except VerificationError as error:
        raise VerificationError(f"{point.name}: tensor '{point.tensor}': {error}") from error


def _real_rows(point: Point, value: npt.NDArray[Any], count: int, size: int) -> npt.NDArray[Any]:
    # A reshape may merge another axis into the batch; the samples are still in order then.
    rows, left = divmod(len(value), size)
    if point.axis % value.ndim and rows and not left:
        samples = value.reshape(size, -1)
        last, padding = samples[count - 1], samples[count:]
        with np.errstate(invalid="ignore"):  # not finite: reported by the measurement
            apart = np.abs(padding - last).max(initial=0)
        if not apart > _SAME * np.abs(last).max(initial=0):
            return value[: rows * count]
    raise OperationError(
        f"{point.name}: tensor '{point.tensor}' of shape {value.shape} does not follow the model's "
        f"fixed batch of {size}, so the padding of the last batch cannot be removed; use a number "
        f"of samples that is a multiple of {size}"
    )
