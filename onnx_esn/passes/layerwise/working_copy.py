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
from onnx_esn.passes.base import copied

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slot:
    """Where a layer's weight and bias are in the copy.

    Attributes:
        weight, bias: names of its own initializers.
        node: first output of its node.
        W: its weight as stored for it.
        b: its bias (M,) (what the initializer holds before any change, times `beta`).
        beta: factor of the node on its bias.
    """

    weight: str
    bias: str
    node: str
    W: Array
    b: Floats
    beta: float

    def values(self, layer: Layer, rows: Floats, shift: Floats) -> dict[str, Array]:
        """New initializers: filters (M, K), and the bias moved by `shift` (M,)."""
        dtype = self.W.dtype
        with np.errstate(over="ignore"):  # an infinity is reported by who takes the values
            weight = np.ascontiguousarray(layer.from_filters(rows)).astype(dtype)
            bias = ((self.b + shift) / self.beta).astype(dtype)
        if layer.op == "MatMul" and layer.slot == 0:
            bias = bias[:, None]
        return {self.weight: weight, self.bias: bias}


def with_own_weights(
    model: onnx.ModelProto, constants: Constants, layers: Sequence[Layer]
) -> tuple[onnx.ModelProto, dict[str, Slot]]:
    """The copy, which computes the same, and the slots by layer name."""
    copy = copied(model)
    graph = copy.graph
    names = Names(graph)
    slots: dict[str, Slot] = {}
    behind: list[tuple[int, onnx.NodeProto]] = []
    for layer in layers:
        node = graph.node[layer.index]
        W = constants.value(layer.weight)
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
        slots[layer.name] = slot = Slot(weight, bias, made, W, b, beta)
        rows = layer.as_filters(W).astype(np.float64)
        for name, value in slot.values(layer, rows, np.zeros(layer.filters)).items():
            graph.initializer.append(numpy_helper.from_array(value, name))
    for index, add in sorted(behind, key=lambda pair: -pair[0]):
        graph.node.insert(index + 1, add)
    return copy, slots
