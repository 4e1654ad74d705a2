"""What a layer's outputs should be: the reference's, and where they join a residual stream, what
brings the stream back to the reference's.

Behind layer → (BatchNormalization) → Add(stream), the error that the stream already carries can be
made good by the layer: with the reference's sum z and the compressed model's own stream s, the
wanted output is y = (z − s − β′)/g, where g, β′ are gain and shift of the BatchNormalization.

Source: He et al. (2017), section 3.3, for residual branches.
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

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
# A channel whose gain is this small against the largest says nothing about the stream.
_SILENT = 1e-3


@dataclass(frozen=True)
class Stream:
    """The sum that a layer's output goes into.

    Attributes:
        total: name of the sum.
        other: name of the other summand.
        gain, shift: (M,) of the BatchNormalization in between; 1 and 0 where there is none.
    """

    total: str
    other: str
    gain: Floats
    shift: Floats

    def wanted(self, y: Array, z: Array, s: Array) -> Array:
        """The wanted outputs (n, M): y where the channel is silent, else what mends the stream."""
        loud = np.abs(self.gain) > _SILENT * np.abs(self.gain).max(initial=0.0)
        mended: Array = (z - s - self.shift) / np.where(loud, self.gain, 1.0)
        return np.where(loud, mended, y)


def find_streams(
    model: onnx.ModelProto, constants: Constants, layers: Sequence[Layer]
) -> dict[str, Stream]:
    """By layer name, for layers whose output goes into one Add with another tensor, and only there.

    Where both summands come from layers, the later one mends what the earlier leaves.
    """
    users, nodes = readers(model), model.graph.node
    found: dict[str, Stream] = {}
    claimed: set[str] = set()
    for layer in sorted(layers, key=lambda x: -x.index):
        norm = batchnorm_after(model, users, constants, layer)
        output = layer.output if norm is None else nodes[users[layer.output][0]].output[0]
        reader = _only(users, output)
        if reader is None or nodes[reader].op_type != "Add":
            continue
        add = nodes[reader]
        others = [name for name in add.input if name != output]
        if len(others) != 1 or others[0] in constants or add.output[0] in claimed:
            continue
        claimed.add(add.output[0])
        gain, shift = np.ones(layer.filters), np.zeros(layer.filters)
        if norm is not None:
            gain, shift = norm.gain, norm.beta - norm.mean * norm.gain
        found[layer.name] = Stream(add.output[0], others[0], gain, shift)
    return found


def _only(users: Mapping[str, Sequence[int]], name: str) -> int | None:
    found = users.get(name, [])
    return found[0] if len(found) == 1 else None
