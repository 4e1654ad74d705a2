"""Where the output of a layer is complete: behind the normalization that follows it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx_esn.graph.layers import Layer
from onnx_esn.graph.readers import Places

from .wiring import Wiring

_PASSED = ("Cast", "DequantizeLinear", "Dropout", "Identity", "QuantizeLinear")
# Input slots that the layer's output may come in at.
_AFFINE = {"Add": (0, 1), "Mul": (0, 1), "Sub": (0,), "Div": (0,), "BatchNormalization": (0,)}


@dataclass(frozen=True)
class End:
    """The end of a layer.

    Attributes:
        tensor: the tensor behind the normalization, or the layer's own output.
        scaled: whether anything on the way multiplies, so that weights do not say all.
    """

    tensor: str
    scaled: bool


def find_end(wiring: Wiring, places: Places, layer: Layer) -> End:
    """Follow a layer's output as long as it alone is read, by what a layer could take over.

    That is BatchNormalization, and constants added or multiplied, one number for a channel.
    """
    end, tensor, scaled = layer.output, layer.output, False
    while len(places[tensor]) == 1:
        index, slot = places[tensor][0]
        if index < 0 or slot < 0:
            break
        node = wiring.nodes[index]
        if node.op_type in _PASSED and slot == 0:
            tensor = node.output[0]
            continue
        if slot not in _AFFINE.get(node.op_type, ()) or any(node.output[1:]):
            break
        others = [name for k, name in enumerate(node.input) if k != slot and name]
        shapes = [wiring.shape(name) for name in others]
        if not shapes or any(s is None or math.prod(s) > layer.filters for s in shapes):
            break  # computed from data, or a number for each position: not a normalization
        tensor = end = node.output[0]
        scaled |= node.op_type not in ("Add", "Sub")
    return End(end, scaled)
