"""Where channels can be scaled and shifted: BatchNormalization, or the filters of a layer.

Exporters either keep BatchNormalization, whose running statistics can be corrected, or fold it into
the layer before, whose weight and bias can be. A *norm point* is one such place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import EvaluationError, attributes
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.inputs import data_inputs
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.node_names import node_name
from onnx_esn.graph.norms.hidden_layers import find_hidden_layers
from onnx_esn.graph.readers import count_users, downstream, read_places

BIAS, MEAN, VAR = 2, 3, 4  # input slots of Conv and Gemm, and of BatchNormalization
_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class NormPoint:
    """A place where each channel can be scaled and shifted.

    Attributes:
        name: name of the BatchNormalization or layer node (first output where it has none).
        op: its operator.
        index: index of its node.
        output: the tensor the correction shows in: output of the BatchNormalization or layer.
        tensor: the tensor to measure: what the BatchNormalization reads, or `output` of a layer.
        axis: channel axis of `tensor`; negative counts from the end.
        channels: number of channels.
        layer: the layer, where it is one; None for a BatchNormalization.
        shift: index of the Add that holds the bias of a MatMul, or None. `output` is its output.
        behind: name of the layer whose output only this BatchNormalization reads, or "".
    """

    name: str
    op: str
    index: int
    output: str
    tensor: str
    axis: int
    channels: int
    layer: Layer | None = None
    shift: int | None = None
    behind: str = ""


@dataclass(frozen=True)
class NormPoints:
    """The norm points of a model in graph order, and (name, reason) of what is none."""

    points: tuple[NormPoint, ...]
    skipped: tuple[tuple[str, str], ...]


def find_norm_points(model: onnx.ModelProto) -> NormPoints:
    """Every BatchNormalization in inference form, and every layer that none follows directly."""
    return _Finder(model).run()


def final_layers(model: onnx.ModelProto, points: Sequence[NormPoint]) -> set[str]:
    """Layers among the points that no other point comes after, by `NormPoint.output`."""
    measured = {point.tensor for point in points}
    before: set[str] = set()
    for node in reversed(model.graph.node):
        if any(name in measured or name in before for name in node.output):
            before.update(node.input)
            before.update(captured(node))
    return {p.output for p in points if p.layer is not None and p.output not in before}


class _Finder:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = model.graph.node
        self.constants = Constants(model)
        self.places = read_places(model)
        layers = find_layers(model, self.constants, Facts(sizes={}))
        self.layers = {layer.index: layer for layer in layers}
        self.makers = {layer.output: layer for layer in layers}
        self.reached = downstream(self.nodes, [x.name for x in data_inputs(model)])

    def run(self) -> NormPoints:
        points: list[NormPoint] = []
        skipped: list[tuple[str, str]] = []
        for index, node in enumerate(self.nodes):
            if node.domain not in ("", "ai.onnx"):
                continue
            found: NormPoint | str | None = None
            if node.op_type == "BatchNormalization":
                found = self._norm(index, node)
            elif index in self.layers:
                found = self._layer(self.layers[index], node)
            if isinstance(found, str):
                skipped.append((node_name(node), found))
            elif found is not None:
                points.append(found)
        skipped += find_hidden_layers(self.model)
        return NormPoints(tuple(points), tuple(skipped))

    def _norm(self, index: int, node: onnx.NodeProto) -> NormPoint | str:
        attrs = attributes(node)
        if attrs.get("training_mode", 0) or any(node.output[1:]):
            return "BatchNormalization in training mode has no running statistics to correct"
        if not attrs.get("spatial", 1):
            return "BatchNormalization with spatial = 0 has a statistic per position"
        if node.input[0] not in self.reached:
            return "its input is constant"
        params = [self._constant(name) for name in node.input[1:5]]
        if any(value is None for value in params):
            return "its parameters are computed from the data"
        if any(value is not None and value.dtype.name not in _FLOATS for value in params):
            return "its parameters are not float16, float32 or float64"
        layer = self.makers.get(node.input[0])
        return NormPoint(
            name=node_name(node),
            op=node.op_type,
            index=index,
            output=node.output[0],
            tensor=node.input[0],
            axis=1,
            channels=self.constants.shape(node.input[MEAN])[0],
            behind=layer.name if layer is not None and self._normalised(layer.output) else "",
        )

    def _layer(self, layer: Layer, node: onnx.NodeProto) -> NormPoint | str | None:
        if self._normalised(layer.output):
            return None
        if layer.output not in self.reached:
            return "its input is constant"
        stored = layer.source in self.constants.initializers
        producer = self.constants.producer.get(layer.source)
        if not stored and (producer is None or producer.op_type != "Constant"):
            return "its weight is computed in the graph"
        if layer.op == "Einsum":
            return "it is an Einsum"
        if self.constants.value(layer.source).dtype.name not in _FLOATS:
            return "its weight is not float16, float32 or float64"
        if count_users(self.model, self.places, layer.source) > 1:
            return "its weight is shared with another node"
        if layer.bias and self._constant(layer.bias) is None:
            return "its bias is computed from the data"
        attrs = attributes(node)
        if layer.op == "Gemm" and attrs.get("beta", 1.0) == 0:
            return "its beta of 0 leaves no place for a bias"
        axis, output, shift = 1, layer.output, None
        if layer.op in ("Gemm", "MatMul"):
            axis = -1 if layer.slot == 1 else -2
        if layer.op == "MatMul":
            shift = self._bias_add(layer.output)
            output = self.nodes[shift].output[0] if shift is not None else output
            if shift is not None and self._normalised(output):
                return None
        return NormPoint(
            name=layer.name,
            op=layer.op,
            index=layer.index,
            output=output,
            tensor=output,
            axis=axis,
            channels=layer.filters,
            layer=layer,
            shift=shift,
        )

    def _normalised(self, tensor: str) -> bool:
        """Whether a BatchNormalization reads the tensor, and nothing else does."""
        places = self.places[tensor]
        if len(places) != 1 or places[0][0] < 0 or places[0][1] != 0:
            return False
        return str(self.nodes[places[0][0]].op_type) == "BatchNormalization"

    def _bias_add(self, tensor: str) -> int | None:
        """The Add of a constant that alone reads the tensor."""
        if len(self.places[tensor]) != 1:
            return None
        index, slot = self.places[tensor][0]
        if index < 0 or slot < 0 or self.nodes[index].op_type != "Add":
            return None
        value = self._constant(self.nodes[index].input[1 - slot])
        return index if value is not None else None

    def _constant(self, name: str) -> NDArray[np.generic] | None:
        try:
            return self.constants.value(name) if name in self.constants else None
        except EvaluationError:
            return None
