"""A copy of a model in which each layer has a weight and a bias of its own, to try values in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.layers import Layer
from onnx_esn.outside import any_outside, is_outside, put_values, tensor_values
from onnx_esn.passes.base import copied

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slot:
    """Where a layer's weight and bias are in the copy.

    Attributes:
        weight, bias: names of its own initializers.
        node: first output of its node.
        stored: its weight as stored for it; where it is outside, only where it is.
        b: its bias (M,) (what the initializer holds before any change, times `beta`).
        beta: factor of the node on its bias.
    """

    weight: str
    bias: str
    node: str
    stored: onnx.TensorProto
    b: Floats
    beta: float

    @property
    def W(self) -> Array:  # noqa: N802
        """Its weight as stored for it; what is outside is read anew."""
        return tensor_values(self.stored)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of both."""
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.stored.data_type))

    def values(self, layer: Layer, rows: Floats, shift: Floats) -> dict[str, Array]:
        """New initializers: filters (M, K), and the bias moved by `shift` (M,)."""
        with np.errstate(over="ignore"):  # an infinity is reported by who takes the values
            weight = np.ascontiguousarray(layer.from_filters(rows)).astype(self.dtype)
        return {self.weight: weight, self.bias: self.moved(layer, self.b + shift)}

    def moved(self, layer: Layer, b: Floats) -> Array:
        """A new initializer for a bias of `b` (M,)."""
        with np.errstate(over="ignore"):
            bias: Array = (b / self.beta).astype(self.dtype)
        return bias[:, None] if layer.op == "MatMul" and layer.slot == 0 else bias


def with_own_weights(
    model: onnx.ModelProto, constants: Constants, layers: Sequence[Layer]
) -> tuple[onnx.ModelProto, dict[str, Slot]]:
    """The copy, which computes the same, and the slots by layer name."""
    copy = copied(model)
    graph = copy.graph
    names = Names(graph)
    lean = any_outside(model)
    slots: dict[str, Slot] = {}
    behind: list[tuple[int, onnx.NodeProto]] = []
    for layer in layers:
        node = graph.node[layer.index]
        weight, bias = names.fresh(f"{layer.name}.weight"), names.fresh(f"{layer.name}.bias")
        node.input[layer.slot] = weight
        beta, b = 1.0, np.zeros(layer.filters)
        made = node.output[0]
        if layer.op == "MatMul":
            made = names.fresh(f"{layer.output}.product")
            add = helper.make_node("Add", [made, bias], [node.output[0]], names.fresh("add"))
            node.output[0] = made
            behind.append((layer.index, add))
        else:
            if layer.op == "Gemm":
                beta = float(attributes(node).get("beta", 1.0))
            if layer.bias:
                stored = constants.value(layer.bias).astype(np.float64)
                b = np.broadcast_to(stored.reshape(-1), layer.filters) * beta
            while len(node.input) < 3:
                node.input.append("")
            node.input[2] = bias
        stored = _stored(layer, constants, weight, lean=lean)
        slots[layer.name] = slot = Slot(weight, bias, made, stored, b, beta)
        graph.initializer.append(stored)
        graph.initializer.append(numpy_helper.from_array(slot.moved(layer, b), bias))
    for index, add in sorted(behind, key=lambda pair: -pair[0]):
        graph.node.insert(index + 1, add)
    return copy, slots


def _stored(layer: Layer, constants: Constants, name: str, *, lean: bool) -> onnx.TensorProto:
    """The weight of a layer under another name; what is outside stays there."""
    source = constants.initializers.get(layer.weight)
    if source is not None and is_outside(source):
        own = onnx.TensorProto()
        own.CopyFrom(source)
        own.name = name
        return own
    W = np.ascontiguousarray(constants.value(layer.weight))
    if not lean:
        return numpy_helper.from_array(W, name)
    kind = helper.np_dtype_to_tensor_dtype(W.dtype)
    own = onnx.TensorProto(name=name, data_type=kind, dims=W.shape)
    put_values(own, W, outside=True)
    return own
