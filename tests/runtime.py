"""What the onnx and onnxruntime at hand can do: tests also run with the oldest ones allowed."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime as ort
import pytest

# The last onnxruntime for Python 3.10 is 1.23.
BEFORE_1_24 = tuple(int(n) for n in ort.__version__.split(".")[:2]) < (1, 24)


@functools.cache
def loads_opset(opset: int) -> bool:
    """Whether models at this operator set can be made and run."""
    if opset > onnx.defs.onnx_opset_version():
        return False
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    model.ir_version = 10 if opset < 24 else 13
    return runs(model, {"x": np.zeros(1, np.float32)})


def runs(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> bool:
    """Whether onnxruntime runs a model at all."""
    try:
        ort.InferenceSession(model.SerializeToString()).run(None, feeds)
    except Exception:
        return False
    return True


needs_opset_25 = pytest.mark.skipif(
    not loads_opset(25), reason="operator set 25 is too new for this onnx or onnxruntime"
)
NEWEST = pytest.param(25, marks=needs_opset_25)
