"""What a layer's outputs should be: the reference's, and where they join a residual stream, what
brings the stream back to the reference's.

Behind layer → (BatchNormalization, bias) → Add(stream), the error that the stream already carries
can be made good by the layer: with the reference's sum z and the compressed model's own stream s,
the wanted output is y = (z − s − β′)/g.

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
from onnx_esn.graph.norms.affine import affine_behind
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
        gain, shift: (M,) of what is in between; 1 and 0 where there is nothing.
    """

    total: str
    other: str
    gain: Floats
    shift: Floats

    def wanted(self, y: Array, z: Array, s: Array) -> Array:
        """The wanted outputs (n, M): y where the channel is silent, else what mends the stream."""
        heard = loud(self.gain)
        mended: Array = (z - s - self.shift) / np.where(heard, self.gain, 1.0)
        return np.where(heard, mended, y)


def loud(gain: Floats) -> npt.NDArray[np.bool_]:
    """Which channels say something about what is behind them."""
    heard: npt.NDArray[np.bool_] = np.abs(gain) > _SILENT * np.abs(gain).max(initial=0.0)
    return heard


def find_streams(
    model: onnx.ModelProto, constants: Constants, layers: Sequence[Layer]
) -> dict[str, Stream]:
    """By layer name, for layers whose output goes into one Add with another tensor, and only there.

    Where both summands come from layers, the one behind more layers mends what the other leaves;
    by then the other must be done.
    """
    users, nodes = readers(model), model.graph.node
    depth = _depths(model, layers)
    found: dict[str, Stream] = {}
    claimed: set[str] = set()
    for layer in sorted(layers, key=lambda x: (-depth[x.output], -x.index)):
        # A scale of a branch (LayerScale) is small: what it would have to mend is large and noisy.
        behind = affine_behind(model, users, constants, layer, scales=False)
        output = behind.output
        reader = _only(users, output)
        if reader is None or nodes[reader].op_type != "Add":
            continue
        add = nodes[reader]
        others = [name for name in add.input if name != output]
        if len(others) != 1 or others[0] in constants or add.output[0] in claimed:
            continue
        if depth.get(others[0], 0) >= depth[layer.output]:
            continue
        claimed.add(add.output[0])
        found[layer.name] = Stream(add.output[0], others[0], behind.gain, behind.shift)
    return found


def _only(users: Mapping[str, Sequence[int]], name: str) -> int | None:
    found = users.get(name, [])
    return found[0] if len(found) == 1 else None


def _depths(model: onnx.ModelProto, layers: Sequence[Layer]) -> dict[str, int]:
    """By tensor, how many of the layers are on the longest way to it, the one that makes it too."""
    mine = {layer.index for layer in layers}
    depth: dict[str, int] = {}
    for i, node in enumerate(model.graph.node):
        below = max((depth.get(name, 0) for name in node.input), default=0)
        depth.update((name, below + (i in mine)) for name in node.output if name)
    return depth
