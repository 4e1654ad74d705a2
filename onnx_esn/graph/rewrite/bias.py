"""Add to the bias of a layer, giving it one where it has none.

The Add of a constant behind a MatMul is its bias: no second one is put in between.
A bias of 32-bit integers stays one, so the layer stays one for integer kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import helper

from onnx_esn.graph.per_filter import per_filter
from onnx_esn.graph.quantized import spread
from onnx_esn.graph.rewrite.surgery import Edit, edit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BiasDelta:
    """What a layer's output gains.

    Attributes:
        values: (M,) per filter.
        trailing: number of axes of the output behind that of the filters.
        type: element type of the output (`TensorProto.DataType`).
    """

    values: Floats
    trailing: int
    type: int

    def laid(self) -> Floats:
        """The values along their axis, as broadcasting wants them."""
        return self.values.reshape((-1,) + (1,) * self.trailing)


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
    if scale and old is not None and _add_to_integers(session, node, delta, scale):
        return
    if node.op in ("MatMul", "Einsum") or (old is not None and not isinstance(old, gs.Constant)):
        # There is no bias, or it is computed: add behind.
        if _add_to_add(session, node, delta):
            return
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


def _add_to_add(session: Edit, node: gs.Node, delta: BiasDelta) -> bool:
    """Add to the constant of the Add that alone reads the output; False where there is none."""
    out = node.outputs[0]
    reader = out.outputs[0] if len(out.outputs) == 1 else None
    if reader is None or reader.op != "Add" or reader.domain not in (None, "", "ai.onnx"):
        return False
    if any(o is out for o in session.graph.outputs) or all(
        n is not reader for n in session.graph.nodes
    ):
        return False
    slot = 1 if reader.inputs[0] is out else 0
    if not isinstance(reader.inputs[slot], gs.Constant):
        return False
    stored = reader.inputs[slot].values
    value = per_filter(stored, len(delta.values), delta.trailing)
    if value is None:
        return False
    shape = np.broadcast_shapes(stored.shape, delta.laid().shape)
    total = (value + delta.values).astype(stored.dtype).reshape(shape)
    reader.inputs[slot] = session.constant(f"{out.name}_bias", total)
    return True


def _add_to_integers(session: Edit, node: gs.Node, delta: BiasDelta, scale: float) -> bool:
    """Add to a bias that is stored as 32-bit integers and dequantized; False where it is not.

    Rounded to the bias's own step, that of the integer products it is added to: anything behind the
    layer would keep runtimes from its integer kernel.
    """
    old = node.inputs[2]
    maker = old.inputs[0] if old.inputs else None
    if maker is None or maker.op != "DequantizeLinear" or maker.attrs.get("block_size", 0):
        return False
    if not all(isinstance(i, gs.Constant) for i in maker.inputs):
        return False
    integers, step = maker.inputs[0].values, np.asarray(maker.inputs[1].values, np.float64)
    if integers.dtype != np.int32 or not (step > 0).all() or _moved(maker):
        return False
    step = spread(step, integers.shape, maker.attrs.get("axis", 1), maker.attrs)
    values = (delta.laid() if node.op == "Gemm" else delta.values) / scale
    total = np.rint(integers + values / step)
    if total.shape != integers.shape or np.abs(total).max(initial=0.0) >= 2.0**31:
        return False
    bias = session.constant(f"{node.outputs[0].name}_bias", total.astype(np.int32))
    if len(old.outputs) == 1 and all(o is not old for o in session.graph.outputs):
        maker.inputs[0] = bias
        return True
    out = gs.Variable(session.unused(f"{bias.name}_float"), dtype=old.dtype, shape=old.shape)
    copy = gs.Node(
        op=maker.op,
        name=out.name,
        domain=maker.domain,
        attrs=dict(maker.attrs),
        inputs=[bias, *maker.inputs[1:]],
        outputs=[out],
    )
    nodes = session.graph.nodes
    nodes.insert(next(i for i, n in enumerate(nodes) if n is node), copy)
    node.inputs[2] = out
    return True


def _moved(maker: gs.Node) -> bool:
    """Whether its zero point, of which the integers are counted, is another number than 0."""
    return len(maker.inputs) > 2 and bool(np.any(maker.inputs[2].values))
