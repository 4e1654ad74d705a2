"""What onnxruntime fuses into a layer: zero padding, constant normalization, an activation."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.zero_padding import Readers, zero_pad_before
from onnx_esn.passes.layers.costs import LayerView

ACTIVATIONS = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Clip")


def known_value(view: LayerView, name: str) -> NDArray[np.generic] | None:
    """Value of a tensor that is the same for all data at this size, or None."""
    if name in view.constants:
        return view.constants.value(name)
    return view.facts.values.get(name)


def fused_head(
    model: onnx.ModelProto, layer: Layer, view: LayerView, readers: Readers
) -> onnx.NodeProto | None:
    """The Pad before a convolution that becomes part of it.

    Args:
        model: the model.
        layer: one of its layers.
        view: its constants and shapes.
        readers: indices of the nodes that read each tensor, see `graph.readers`.
    """
    found = zero_pad_before(model, layer, partial(known_value, view), readers)
    return None if found is None else found.node


def fused_tail(
    model: onnx.ModelProto, layer: Layer, view: LayerView, readers: Readers
) -> tuple[onnx.NodeProto, ...]:
    """The nodes behind a convolution that become part of it; () for other layers."""
    if layer.op != "Conv":
        return ()
    found: list[onnx.NodeProto] = []
    name = layer.output
    while True:
        users = readers.get(name, ())
        node = model.graph.node[users[0]] if len(users) == 1 and users[0] >= 0 else None
        if node is None or not all(i in view.constants for i in node.input if i and i != name):
            return tuple(found)
        if node.op_type in ACTIVATIONS and node.input[0] == name:
            return (*found, node)
        if found or node.op_type != "BatchNormalization" or node.input[0] != name:
            return tuple(found)
        if len(node.output) > 1 or attributes(node).get("training_mode"):
            return ()
        found.append(node)
        name = node.output[0]
