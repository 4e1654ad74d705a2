"""The oracle of pruning: in the *original* model, zero what consumers read of removed channels.

It knows the labels, but nothing of how tensors are sliced or nodes are mended.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_esn.graph.bodies import restored
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.hoisting import captured


def masked_model(analysis: Analysis, removed: np.ndarray) -> onnx.ModelProto:
    """The original model with every slice of a weight that reads a removed label set to zero.

    Args:
        analysis: labels of the original model.
        removed: per label, whether it goes.
    """
    model = onnx.ModelProto()
    model.CopyFrom(analysis.model)
    weights: dict[tuple[int, int], np.ndarray] = {}
    for claim in analysis.propagation.claims:
        if claim.role == "input" and removed[claim.labels].any():
            user = claim.node, claim.slot
            W = weights.get(user, analysis.constants.value(claim.tensor))
            weights[user] = np.where(removed[claim.labels], np.zeros((), W.dtype), W)
    for (node, slot), W in weights.items():
        _store(model, numpy_helper.from_array(W, f"masked_{node}_{slot}"))
        model.graph.node[node].input[slot] = f"masked_{node}_{slot}"
    for product in analysis.propagation.products:
        gone = removed[product.labels]
        if gone.any():
            node = model.graph.node[product.node]
            source = node.input[product.slot]
            dtype = helper.tensor_dtype_to_np_dtype(analysis.facts.types[source])
            name = f"mask_{product.node}_{product.slot}"
            _store(model, numpy_helper.from_array((~gone).astype(dtype), name))
            model.graph.node.append(helper.make_node("Mul", [source, name], [f"{name}_out"]))
            node.input[product.slot] = f"{name}_out"
    _sort(model)
    return restored(model)


def _store(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.initializer.append(tensor)
    if model.ir_version < 4:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )


def _sort(model: onnx.ModelProto) -> None:
    waiting = list(model.graph.node)
    made = {n for node in waiting for n in node.output}
    ready: set[str] = set()
    order: list[onnx.NodeProto] = []
    while waiting:
        rest = []
        for node in waiting:
            reads = {*node.input, *captured(node)} & made
            if reads <= ready:
                order.append(node)
                ready.update(node.output)
            else:
                rest.append(node)
        assert len(rest) < len(waiting)
        waiting = rest
    copies = []
    for node in order:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del model.graph.node[:]
    model.graph.node.extend(copies)
