"""The layers that carry cost: Conv, ConvTranspose, Gemm, MatMul and Einsum with weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.einsum import parse
from onnx_esn.graph.evaluate import EvaluationError, attributes
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.node_names import unique_names

Array = NDArray[np.generic]
OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")


@dataclass(frozen=True)
class Layer:
    """A weight-bearing layer.

    Attributes:
        index: index of its node in the graph.
        name: name of its node (its output's where that is empty or not unique).
        op: Conv, ConvTranspose, Gemm, MatMul or Einsum.
        weight: name of the weight as the node reads it.
        source: name of the initializer behind it (through Identity), or the same name.
        slot: input slot of the weight.
        output: name of its output.
        bias: name of its bias, or "".
        weight_shape: shape of the weight.
        filter_axis: axis of the weight that counts filters (within a group for ConvTranspose).
        groups: groups of the convolution; 1 for the others.
        kernel: kernel size; () for Gemm and MatMul.
        channels_in: channels it reads.
        filters: filters it has, M.
        output_shape: full shape of its output, or None where unknown.
        channel_axis: axis of the output that holds the filters.
        macs_per_filter: multiply-accumulates of one filter, for one run of the model at the
            analysed size divided by the batch; None where the output shape is unknown.
    """

    index: int
    name: str
    op: str
    weight: str
    source: str
    slot: int
    output: str
    bias: str
    weight_shape: Shape
    filter_axis: int
    groups: int
    kernel: Shape
    channels_in: int
    filters: int
    output_shape: Shape | None
    channel_axis: int
    macs_per_filter: int | None

    @property
    def macs(self) -> int | None:
        """MACs of the layer."""
        return None if self.macs_per_filter is None else self.macs_per_filter * self.filters

    @property
    def depthwise(self) -> bool:
        """Whether each filter reads one channel of many."""
        return self.groups > 1 and self.channels_in == self.groups

    @property
    def parameters(self) -> int:
        """Number of weights, biases excluded."""
        return math.prod(self.weight_shape)

    def as_filters(self, W: Array) -> Array:
        """The weight as a matrix (M, K): one row per filter, in output order."""
        if self.op == "ConvTranspose":
            g = self.groups
            c, m = self.weight_shape[0] // g, self.weight_shape[1]
            rows = W.reshape(g, c, m, -1).transpose(0, 2, 1, 3)
            return np.ascontiguousarray(rows).reshape(g * m, -1)
        rows = np.moveaxis(W, self.filter_axis, 0)
        return np.ascontiguousarray(rows).reshape(self.filters, -1)

    def from_filters(self, rows: Array) -> Array:
        """Inverse of `as_filters`: (M, K) back to the weight's own shape."""
        if self.op == "ConvTranspose":
            g = self.groups
            c, m = self.weight_shape[0] // g, self.weight_shape[1]
            W = rows.reshape(g, m, c, -1).transpose(0, 2, 1, 3)
            return np.ascontiguousarray(W).reshape(self.weight_shape)
        shape = list(self.weight_shape)
        first = shape.pop(self.filter_axis)
        W = np.moveaxis(rows.reshape([first, *shape]), 0, self.filter_axis)
        return np.ascontiguousarray(W)


def find_layers(model: onnx.ModelProto, constants: Constants, facts: Facts) -> list[Layer]:
    """All weight-bearing layers of the main graph, in graph order."""
    batch = _batch(model, facts)
    names = unique_names(model)
    layers = []
    for index, node in enumerate(model.graph.node):
        if node.op_type in OPERATORS and node.domain in ("", "ai.onnx"):
            layer = _layer(node, index, names[index], constants, facts, batch)
            if layer is not None:
                layers.append(layer)
    return layers


def _batch(model: onnx.ModelProto, facts: Facts) -> int:
    for info in model.graph.input:
        shape = facts.sizes.get(info.name, ())
        if len(shape) > 1:
            return max(1, shape[0])
    return 1


def _layer(
    node: onnx.NodeProto, index: int, name: str, constants: Constants, facts: Facts, batch: int
) -> Layer | None:
    slots = [1] if node.op_type.startswith("Conv") else [1, 0]
    if len(node.input) < 2:
        return None
    slot = next((s for s in slots if node.input[s] in constants), None)
    if slot is None or (len(slots) > 1 and all(node.input[s] in constants for s in slots)):
        return None
    weight = node.input[slot]
    try:
        shape = constants.shape(weight)
    except EvaluationError:
        return None
    if len(shape) < 2:
        return None
    if node.op_type == "Einsum":
        return _einsum(node, index, name, slot, constants, facts, batch)
    attrs = attributes(node)
    out = facts.shapes.get(node.output[0])
    groups, channel_axis = 1, 1
    kernel: Shape = ()
    if node.op_type == "Conv":
        groups = int(attrs.get("group", 1))
        filter_axis, filters, channels = 0, shape[0], shape[1] * groups
        kernel = shape[2:]
        per_output = math.prod(shape[1:])
    elif node.op_type == "ConvTranspose":
        groups = int(attrs.get("group", 1))
        filter_axis, filters, channels = 1, shape[1] * groups, shape[0]
        kernel = shape[2:]
        per_output = shape[0] // groups * math.prod(kernel)
    else:
        if node.op_type == "Gemm":
            transposed = bool(attrs.get("transB" if slot == 1 else "transA", 0))
            filter_axis = int(slot == 1) ^ int(transposed)
        else:
            filter_axis = len(shape) - 1 if slot == 1 else len(shape) - 2
        inner = (
            (1 - filter_axis)
            if node.op_type == "Gemm"
            else (len(shape) - 2 if slot == 1 else len(shape) - 1)
        )
        filters, channels = shape[filter_axis], shape[inner]
        per_output = channels
        rank = len(out) if out is not None else len(shape)
        channel_axis = rank - 1 if slot == 1 else rank - 2
    macs = None
    if node.op_type == "ConvTranspose":
        # Every input position meets every kernel position once.
        source = facts.shapes.get(node.input[0])
        if source is not None:
            macs = source[0] * math.prod(source[2:]) * per_output // batch
    elif out is not None:
        macs = math.prod(out) // filters * per_output // batch
    bias = node.input[2] if node.op_type != "MatMul" and len(node.input) > 2 else ""
    return Layer(
        index=index,
        name=name,
        op=node.op_type,
        weight=weight,
        source=constants.root(weight),
        slot=slot,
        output=node.output[0],
        bias=bias,
        weight_shape=tuple(shape),
        filter_axis=filter_axis,
        groups=groups,
        kernel=tuple(kernel),
        channels_in=channels,
        filters=filters,
        output_shape=out,
        channel_axis=channel_axis,
        macs_per_filter=macs,
    )


def _einsum(
    node: onnx.NodeProto,
    index: int,
    name: str,
    slot: int,
    constants: Constants,
    facts: Facts,
    batch: int,
) -> Layer | None:
    """An Einsum with a weight that makes channels along one axis of the output."""
    weight, data = node.input[slot], facts.shapes.get(node.input[1 - slot])
    shape = constants.shape(weight)
    if data is None:
        return None
    equation = parse(node, [len(shape), len(data)] if slot == 0 else [len(data), len(shape)])
    if equation is None:
        return None
    mine, others = equation.axes[slot], equation.axes[1 - slot]
    if (len(mine), len(others)) != (len(shape), len(data)):  # no such Einsum runs
        return None
    made = [a for a in equation.out if a in mine and a not in others]
    if len(made) != 1:
        return None
    filter_axis = mine.index(made[0])
    filters = shape[filter_axis]
    sizes = dict(zip((*mine, *others), (*shape, *data), strict=True))
    return Layer(
        index=index,
        name=name,
        op=node.op_type,
        weight=weight,
        source=constants.root(weight),
        slot=slot,
        output=node.output[0],
        bias="",
        weight_shape=tuple(shape),
        filter_axis=filter_axis,
        groups=1,
        kernel=(),
        channels_in=math.prod(sizes[a] for a in equation.contracted),
        filters=filters,
        output_shape=facts.shapes.get(node.output[0]),
        channel_axis=equation.out.index(made[0]),
        macs_per_filter=math.prod(sizes.values()) // filters // batch,
    )
