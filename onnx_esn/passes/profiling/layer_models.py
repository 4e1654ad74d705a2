"""A layer as a model of its own, at any width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.layers import Layer
from onnx_esn.passes.layers.costs import LayerView
from onnx_esn.passes.profiling.fusions import fused_head, fused_tail, known_value
from onnx_esn.passes.profiling.grid import Widths

Array = NDArray[np.generic]


@dataclass(frozen=True)
class LoneLayer:
    """A layer with what is fused into it, at one input size.

    Attributes:
        layer: the layer.
        node: its node.
        head, tail: a Pad before it or None, and nodes behind it, that onnxruntime fuses into it.
        small: values of their constants, and of nothing else, by name.
        bias_shape: of its bias, () without one.
        data_shape: shape of its input (of the head, where there is one).
        types: element types (`TensorProto.DataType`) of its input and its weight.
        opsets, ir_version: of the model.
    """

    layer: Layer
    node: onnx.NodeProto
    head: onnx.NodeProto | None
    tail: tuple[onnx.NodeProto, ...]
    small: Mapping[str, Array]
    bias_shape: tuple[int, ...]
    data_shape: tuple[int, ...]
    types: tuple[int, int]
    opsets: tuple[tuple[str, int], ...]
    ir_version: int

    @property
    def key(self) -> tuple[object, ...]:
        """The same for layers that take the same time."""
        x = self.layer
        around = [n for n in (self.head, self.node, *self.tail) if n is not None]
        parts = [(n.op_type, _plain(n)) for n in around]
        if self.head is not None:
            parts.append((str([self.small[i].tolist() for i in self.head.input[1:] if i]), ()))
        places = x.slot, self.bias_shape, self.data_shape, x.weight_shape, self.types
        return (*places, *parts)

    def widths(self, round_to: int) -> tuple[Widths, Widths]:
        """Which numbers of channels and filters it can have."""
        x = self.layer
        if x.depthwise:
            only = Widths(x.channels_in, _unit(x.channels_in, 1, round_to), least=2)
            return only, only
        least = 2 * x.groups if x.groups > 1 else 1  # one channel a group has another kernel
        n_in = Widths(x.channels_in, _unit(x.channels_in, x.groups, round_to), least)
        return n_in, Widths(x.filters, _unit(x.filters, x.groups, round_to))

    def model(self, n_in: int, n_out: int, seed: int = 0) -> onnx.ModelProto:
        """The layer with its tail, reading `n_in` channels, with `n_out` filters.

        Its weights are small random numbers: zeros and denormal numbers take another time.
        """
        rng = np.random.default_rng(seed)
        x, weights = self.layer, []

        def constant(name: str, elem: int, shape: Sequence[int]) -> str:
            values = rng.random(tuple(shape), np.float32) * 0.1 + 0.01
            dtype = helper.tensor_dtype_to_np_dtype(elem)
            weights.append(numpy_helper.from_array(values.astype(dtype), name))
            return name

        node = onnx.NodeProto()
        node.CopyFrom(self.node)
        groups = n_in if x.depthwise else x.groups
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.i = groups
        names = ["x", constant("W", self.types[1], self._weight_shape(n_in, n_out, groups))]
        inputs = names if x.slot == 1 else names[::-1]
        if x.bias:
            axis = -1 if x.op != "Gemm" or x.slot == 1 else -2
            bias = list(self.bias_shape)
            if len(bias) >= -axis and bias[axis] == x.filters:
                bias[axis] = n_out
            inputs.append(constant("b", self.types[1], bias))
        node.input[:], node.output[:] = inputs, ["y"]
        nodes, last = [node], "y"

        def follow(source: onnx.NodeProto, inputs: str, output: str) -> onnx.NodeProto:
            copy = onnx.NodeProto()
            copy.CopyFrom(source)
            copy.input[0], copy.output[:] = inputs, [output]
            for slot, name in enumerate(source.input):
                if slot and name:
                    value, copy.input[slot] = self.small[name], f"{output}_{slot}"
                    if source.op_type == "BatchNormalization":
                        elem = helper.np_dtype_to_tensor_dtype(value.dtype)
                        constant(copy.input[slot], elem, [n_out])
                    else:
                        weights.append(numpy_helper.from_array(value, copy.input[slot]))
            return copy

        if self.head is not None:
            nodes.insert(0, follow(self.head, "x", "padded"))
            node.input[0] = "padded"
        for i, source in enumerate(self.tail):
            nodes.append(follow(source, last, f"y{i}"))
            last = f"y{i}"
        shape = list(self.data_shape)
        shape[self._data_axis()] = n_in
        rank = len(x.output_shape or shape)
        x_info = helper.make_tensor_value_info("x", self.types[0], shape)
        y_info = helper.make_tensor_value_info(last, self.types[0], [None] * rank)
        graph = helper.make_graph(nodes, "layer", [x_info], [y_info], weights)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)

    def _weight_shape(self, n_in: int, n_out: int, groups: int) -> list[int]:
        x = self.layer
        if x.op == "Conv":
            return [n_out, n_in // groups, *x.kernel]
        if x.op == "ConvTranspose":
            return [n_in, n_out // groups, *x.kernel]
        shape = list(x.weight_shape)
        inner = {len(shape) - 1, len(shape) - 2} - {x.filter_axis}
        shape[x.filter_axis], shape[inner.pop()] = n_out, n_in
        return shape

    def _data_axis(self) -> int:
        x, rank = self.layer, len(self.data_shape)
        if x.op in ("Conv", "ConvTranspose"):
            return 1
        if x.op == "Gemm":
            turned = bool(attributes(self.node).get("transA" if x.slot == 1 else "transB", 0))
            return int(turned) ^ int(x.slot == 1)
        return rank - 1 if x.slot == 1 or rank == 1 else rank - 2


def lone_layer(
    model: onnx.ModelProto, view: LayerView, layer: Layer, readers: Mapping[str, Sequence[int]]
) -> LoneLayer | str:
    """Take a layer out of its model, or say why it cannot be timed alone."""
    node = model.graph.node[layer.index]
    if layer.op == "Einsum":
        return "Einsum is not timed alone"
    data = node.input[1 - layer.slot]
    head = fused_head(model, layer, view, readers)
    if head is not None:
        data = head.input[0]
    shape = view.facts.shapes.get(data)
    if shape is None:
        return "the shape of its input depends on data or on an unknown operator"
    if any(n.op_type == "DequantizeLinear" for n in _behind(view, layer.weight)):
        return "its weights are integers, which decide its kernel together with what is around it"
    tail = fused_tail(model, layer, view, readers)
    around = tail if head is None else (head, *tail)
    names = [i for n in around for i in n.input[1:] if i]
    small = {i: np.asarray(known_value(view, i)) for i in names}
    bias: tuple[int, ...] = ()
    if layer.bias:
        bias = (
            view.constants.shape(layer.bias) if layer.bias in view.constants else (layer.filters,)
        )
    types = (
        view.facts.types[data],
        int(helper.np_dtype_to_tensor_dtype(view.constants.value(layer.weight, keep=False).dtype)),
    )
    opsets = tuple((o.domain, o.version) for o in model.opset_import)
    return LoneLayer(
        layer, node, head, tail, small, bias, tuple(shape), types, opsets, model.ir_version
    )


def _behind(view: LayerView, name: str) -> list[onnx.NodeProto]:
    found = []
    while name in view.constants.producer:
        found.append(view.constants.producer[name])
        name = found[-1].input[0] if found[-1].input else ""
    return found


def _unit(full: int, groups: int, round_to: int) -> int:
    both = math.lcm(groups, round_to)
    return both if 2 * both <= full else groups


def _plain(node: onnx.NodeProto) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, repr(v)) for k, v in attributes(node).items()))
