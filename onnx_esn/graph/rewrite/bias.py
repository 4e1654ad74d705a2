"""Add to the bias of a layer, giving it one where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import helper

from onnx_esn.graph.rewrite.surgery import Edit, edit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BiasDelta:
    """What a layer's output gains.

    Attributes:
        values: (M,) per filter.
        axis: axis of the output that holds the filters.
        rank: rank of the output.
        type: element type of the output (`TensorProto.DataType`).
    """

    values: Floats
    axis: int
    rank: int
    type: int

    def laid(self) -> Floats:
        """The values along their axis, as broadcasting wants them."""
        return self.values.reshape((-1,) + (1,) * (self.rank - 1 - self.axis))


def add_to_biases(
    model: onnx.ModelProto, deltas: Mapping[str, BiasDelta], *, owned: bool = False
) -> onnx.ModelProto:
    """A copy of the model with `deltas` added to layers' biases.

    Args:
        model: the model.
        deltas: by output tensor of a Conv, ConvTranspose, Gemm or MatMul.
        owned: nobody else has the model: it is changed instead.
    """
    if not deltas:
        return model
    with edit(model, owned=owned) as session:
        for output, delta in deltas.items():
            _add(session, session.node(output), delta)
    return session.model


def _add(session: Edit, node: gs.Node, delta: BiasDelta) -> None:
    output = node.outputs[0].name
    dtype = helper.tensor_dtype_to_np_dtype(delta.type)
    old = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    scale = float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else 1.0
    if node.op in ("MatMul", "Einsum") or (old is not None and not isinstance(old, gs.Constant)):
        # There is no bias, or it is computed: add behind.
        value = delta.laid().astype(dtype)
        session.insert_after(output, "Add", [session.constant(f"{output}_bias", value)])
        return
    values = delta.laid() if node.op == "Gemm" else delta.values
    if old is None or scale == 0.0:
        base, scale = np.zeros(()), 1.0
        if "beta" in node.attrs:
            node.attrs["beta"] = 1.0
    else:
        base = np.asarray(old.values, np.float64)
    bias = session.constant(f"{output}_bias", (base + values / scale).astype(dtype))
    while len(node.inputs) < 3:
        node.inputs.append(bias)
    node.inputs[2] = bias
