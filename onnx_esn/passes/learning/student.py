"""The model as it is learned: each layer with a weight and a bias of its own, what follows folded.

A BatchNormalization behind a layer becomes part of the weight that is fed: one operator less to go
through, forward and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.norms.batchnorm import batchnorm_after
from onnx_esn.graph.readers import readers
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.layerwise.working_copy import Slot, with_own_weights

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LearnedLayer:
    """A layer of the student.

    Attributes:
        layer: the layer.
        slot: its initializers.
        gain, offset: (M,) of the BatchNormalization that was folded: the layer gives
            gain·(W·x + b) + offset.
    """

    layer: Layer
    slot: Slot
    gain: Floats
    offset: Floats

    @property
    def names(self) -> tuple[str, str]:
        """Of what is fed."""
        return self.slot.weight, self.slot.bias

    @property
    def rows(self) -> Floats:
        """Its filters (M, K) as they are."""
        return np.asarray(self.layer.as_filters(self.slot.W), np.float64)

    def feeds(self, rows: Floats, shift: Floats) -> dict[str, Array]:
        """What to feed for filters (M, K) and a bias moved by `shift` (M,)."""
        bias = self.gain * (self.slot.b + shift) + self.offset - self.slot.b
        return self.slot.values(self.layer, rows * self.gain[:, None], bias)

    def gradients(self, given: Mapping[str, Array]) -> tuple[Floats, Floats]:
        """Of filters (M, K) and shift (M,), from those of the feeds."""
        rows = np.asarray(self.layer.as_filters(given[self.slot.weight]), np.float64)
        bias = np.asarray(given[self.slot.bias], np.float64).reshape(-1) / self.slot.beta
        return rows * self.gain[:, None], bias * self.gain


def make_student(
    model: onnx.ModelProto, layers: Sequence[Layer]
) -> tuple[onnx.ModelProto, dict[str, LearnedLayer]]:
    """A copy that computes the same once it is fed, and its layers by name."""
    copy, slots = with_own_weights(model, Constants(model), layers)
    constants, users = Constants(copy), readers(copy)
    found: dict[str, LearnedLayer] = {}
    for layer in layers:
        slot = slots[layer.name]
        norm = batchnorm_after(copy, users, constants, layer)
        gain, offset = np.ones(layer.filters), np.zeros(layer.filters)
        if norm is not None:
            gain, offset = norm.gain, norm.beta - norm.gain * norm.mean
            node = copy.graph.node[users[layer.output][0]]
            del node.input[1:], node.attribute[:]
            node.op_type = "Identity"
        found[layer.name] = LearnedLayer(layer, slot, gain, offset)
    return copy, found
