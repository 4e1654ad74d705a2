"""What happens to the outputs of a layer, filter by filter, before anything else reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import EvaluationError
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.norms.batchnorm import batchnorm_of
from onnx_esn.graph.per_filter import per_filter, trailing_axes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """z = gain·y + shift for the output y of each filter.

    Attributes:
        output: the tensor z; that of the layer, where nothing of the kind is behind it.
        gain, shift: (M,).
    """

    output: str
    gain: Floats
    shift: Floats


def affine_behind(
    model: onnx.ModelProto,
    readers: Mapping[str, Sequence[int]],
    constants: Constants,
    layer: Layer,
    *,
    scales: bool = True,
) -> Affine:
    """Follow BatchNormalization, and Add, Sub and Mul with a constant for each filter.

    Each must be the only reader of what comes before it. The Add behind a MatMul is its bias.

    Args:
        model: the model.
        readers: who reads each of its tensors.
        constants: of the model.
        layer: the layer.
        scales: whether Mul is followed.
    """
    found = Affine(layer.output, np.ones(layer.filters), np.zeros(layer.filters))
    while True:
        users = readers.get(found.output, ())
        if len(users) != 1 or users[0] < 0:
            return found
        node = model.graph.node[users[0]]
        if node.op_type == "Mul" and not scales:
            return found
        step = _step(model, readers, constants, layer, found.output, node)
        if step is None:
            return found
        found = Affine(step.output, step.gain * found.gain, step.gain * found.shift + step.shift)


def _step(
    model: onnx.ModelProto,
    readers: Mapping[str, Sequence[int]],
    constants: Constants,
    layer: Layer,
    tensor: str,
    node: onnx.NodeProto,
) -> Affine | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    one, none = np.ones(layer.filters), np.zeros(layer.filters)
    if node.op_type == "BatchNormalization":
        norm = batchnorm_of(model, readers, constants, tensor, layer)
        if norm is None:
            return None
        return Affine(node.output[0], norm.gain, norm.beta - norm.mean * norm.gain)
    if node.op_type not in ("Add", "Sub", "Mul") or list(node.input).count(tensor) != 1:
        return None
    slot = 1 - list(node.input).index(tensor)
    if node.input[slot] not in constants or (node.op_type == "Sub" and slot == 0):
        return None
    try:
        stored = constants.value(node.input[slot])
    except EvaluationError:
        return None
    value = per_filter(stored, layer.filters, trailing_axes(layer))
    if value is None or not np.isfinite(value).all():
        return None
    if node.op_type == "Mul":
        return Affine(node.output[0], value, none)
    return Affine(node.output[0], one, value if node.op_type == "Add" else -value)
