"""Label rules for what absorbs a factor: layers and BatchNormalization (see `homogeneity`)."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_esn.graph.channels import rules_contraction as contraction
from onnx_esn.graph.channels.propagation import Propagation, Rule, along, others
from onnx_esn.graph.movement import MovementError
from onnx_esn.graph.node_names import describe
from onnx_esn.passes.equalizing.homogeneity import HOMOGENEOUS, clip_all, meet


def convolution(p: Propagation, node: onnx.NodeProto) -> None:
    """Conv, ConvTranspose: each filter has a factor of its own, of any grouping."""
    if node.input[1] not in p.constants:
        raise MovementError("its weight is computed at run time")
    shape = p.constants.shape(node.input[1])
    rank, groups = len(shape), int(p.attrs(node).get("group", 1))
    rest = (1,) * (rank - 2)
    read = contraction.vector_along(p, node.input[0], 1, f"read by {describe(node)}")
    if node.op_type == "Conv":
        made = p.space.issue(shape[0], p.index)
        p.claim(node, 1, along(made, 0, rank), "filter")
        if read is not None:
            rows = np.repeat(read.reshape(groups, -1), shape[0] // groups, axis=0)
            p.claim(node, 1, rows.reshape(*rows.shape, *rest), "input")
    else:
        made = p.space.issue(shape[1] * groups, p.index)
        rows = np.repeat(made.reshape(groups, -1), shape[0] // groups, axis=0)
        p.claim(node, 1, rows.reshape(*rows.shape, *rest), "filter")
        if read is not None:
            p.claim(node, 1, along(read, 0, rank), "input")
    if len(node.input) > 2 and node.input[2]:
        if p.get(node.input[2]) is not None:
            raise MovementError("its bias is computed from channels")
        meet(p, node, 2, made)
    p.put(node.output[0], along(made, 1, rank))


def gemm(p: Propagation, node: onnx.NodeProto) -> None:
    """Gemm with a constant on either side; channels along its other axis pass."""
    attrs = p.attrs(node)
    slot = 1 if node.input[1] in p.constants else 0
    data = node.input[1 - slot]
    if node.input[slot] not in p.constants or data in p.constants:
        raise MovementError("both of its factors are computed at run time")
    turned = bool(attrs.get("transB" if slot else "transA", 0))
    filter_axis = int(slot == 1) ^ int(turned)
    inner = slot ^ int(bool(attrs.get("transA" if slot else "transB", 0)))
    labels = p.get(data)
    if labels is not None and labels.shape[inner] == 1:
        result = labels if inner == slot else labels.T
    else:
        read = contraction.vector_along(p, data, inner, f"read by {describe(node)}")
        made = p.space.issue(p.constants.shape(node.input[slot])[filter_axis], p.index)
        p.claim(node, slot, along(made, filter_axis, 2), "filter")
        if read is not None:
            p.claim(node, slot, along(read, 1 - filter_axis, 2), "input")
        result = along(made, slot, 2)
    if len(node.input) > 2 and node.input[2] and attrs.get("beta", 1.0) != 0.0:
        if p.get(node.input[2]) is not None:
            raise MovementError("its bias is computed from channels")
        meet(p, node, 2, result)
    p.put(node.output[0], result)


def matmul(p: Propagation, node: onnx.NodeProto) -> None:
    """MatMul with a constant on either side."""
    if not any(name in p.constants for name in node.input):
        raise MovementError("both of its factors are computed at run time")
    contraction.matmul(p, node)


def batch_norm(p: Propagation, node: onnx.NodeProto) -> None:
    """BatchNormalization: the mean takes the factors of the input, γ and β those of the output.

    γ·(x − μ)/√(σ² + ε) stays what it is with t·x, t·μ and γ/t; σ² and ε stay.
    """
    attrs = p.attrs(node)
    if not attrs.get("spatial", 1):
        raise MovementError("it normalises each position by itself")
    if attrs.get("training_mode", 0) or any(node.output[1:]):
        raise MovementError("it is in training mode")
    if any(name not in p.constants for name in node.input[1:]):
        raise MovementError("its parameters are computed at run time")
    shape = p.shape(node.input[0])
    x = p.get(node.input[0])
    if x is not None:
        x = p.space.tie_along(x, others(len(shape), 1), f"normalised in {describe(node)}")
        if x.size == 1:
            p.space.lock(x, f"normalised as a whole in {describe(node)}")
        else:
            p.claim(node, 1, x.reshape(-1), "input")
            p.claim(node, 3, x.reshape(-1), "param")
    made = p.space.issue(shape[1], p.index)
    p.claim(node, 1, made, "filter")
    p.claim(node, 2, made, "param")
    p.put(node.output[0], along(made, 1, len(shape)))


SCALING: dict[str, Rule] = {
    **HOMOGENEOUS,
    **dict.fromkeys(("Conv", "ConvTranspose"), convolution),
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
}
SCALING_ALL: dict[str, Rule] = {**SCALING, "Clip": clip_all}
