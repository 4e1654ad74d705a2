"""Add to the bias of a layer, giving it one where it has none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_esn.graph.surgery import Edit, edit

Floats = NDArray[np.float64]


def add_to_biases(model: onnx.ModelProto, deltas: Mapping[str, Floats]) -> onnx.ModelProto:
    """A copy of the model with `deltas` added to layers' biases.

    Args:
        model: the model.
        deltas: by output tensor of a Conv, ConvTranspose, Gemm or MatMul: (M,) to add per filter.
    """
    if not deltas:
        return model
    with edit(model) as session:
        for output, delta in deltas.items():
            _add(session, session.node(output), delta)
    return session.model


def _add(session: Edit, node: gs.Node, delta: Floats) -> None:
    weight = (
        next(t for t in node.inputs if isinstance(t, gs.Constant) and t.name)
        if any(isinstance(t, gs.Constant) for t in node.inputs)
        else None
    )
    dtype = np.dtype(np.float32) if weight is None else np.dtype(weight.dtype)
    if not _is_float(dtype):
        dtype = np.dtype(np.float32)
    if node.op == "MatMul":
        constant = session.constant(f"{node.outputs[0].name}_bias", delta.astype(dtype))
        session.insert_after(node.outputs[0].name, "Add", [constant])
        return
    scale = float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else 1.0
    old: Floats = np.zeros(1)
    if len(node.inputs) > 2 and isinstance(node.inputs[2], gs.Constant):
        old = node.inputs[2].values.astype(np.float64)
        dtype = np.dtype(node.inputs[2].dtype)
    elif scale == 0.0:
        scale = 1.0
        node.attrs["beta"] = 1.0
    new = (old.reshape(-1) + delta / scale).astype(dtype)
    constant = session.constant(f"{node.outputs[0].name}_bias", new)
    if len(node.inputs) > 2:
        node.inputs[2] = constant
    else:
        node.inputs.append(constant)


def _is_float(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind == "f" or "float" in dtype.name
