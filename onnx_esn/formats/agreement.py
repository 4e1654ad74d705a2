"""Whether two models compute the same, as onnxruntime runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from onnx_esn.calibration import Session
from onnx_esn.errors import OnnxEsnError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.inputs import data_inputs
from onnx_esn.graph.shapes import guessed_facts

# Of the largest output; another meaning of an operator is far beyond.
_TOLERANCE = 1e-4
_HALF_TOLERANCE = 2e-2  # where the model computes with 11 or 8 bits somewhere
_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def outputs_agree(model: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Whether both give the same outputs on one batch of noise; False if onnxruntime runs neither.

    Args:
        model: the model.
        other: one with the same inputs and outputs.
    """
    try:
        feeds = _noise(model)
        expected, found = Session(model).run(feeds), Session(other).run(feeds)
    except OnnxEsnError:
        return False
    half = any(t.data_type in _HALVES for t in model.graph.initializer)
    tolerance = _HALF_TOLERANCE if half else _TOLERANCE
    return all(_close(expected[name], found[name], tolerance) for name in expected)


def _noise(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    sizes = guessed_facts(model, Constants(model), batch=2).sizes
    rng = np.random.default_rng(0)
    feeds: dict[str, npt.NDArray[Any]] = {}
    for info in data_inputs(model):
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
        shape = sizes[info.name]
        noise = rng.normal(size=shape) if dtype.kind == "f" else np.ones(shape)
        feeds[info.name] = noise.astype(dtype)
    return feeds


def _close(a: npt.NDArray[Any], b: npt.NDArray[Any], tolerance: float) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    limit = tolerance * float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    return bool(np.allclose(a, b, rtol=0.0, atol=limit, equal_nan=True))
