"""The reference's layer of the same name: which of its filters are left, and what they should send.

Gain g and shift β′ of what is behind a layer (BatchNormalization, the Add of a MatMul's bias, a
scale) may differ between the two: pruning and refits put means there. What comes out there is to
be the reference's, so the wanted output is y = (g_r·y_r + β′_r − β′)/g.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.norms.affine import Affine, affine_behind
from onnx_esn.graph.readers import readers
from onnx_esn.graph.rewrite.rotated import in_other_basis
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.correcting.norm_pairing import OTHER_BASIS, kept_channels, kept_positions
from onnx_esn.passes.layerwise.following import find_plain_layers
from onnx_esn.passes.layerwise.geometry import Geometry
from onnx_esn.passes.layerwise.targets import loud

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Change:
    """From the outputs of the reference's layer to those that bring the same behind it.

    Attributes:
        gain, shift: (M,).
    """

    gain: Floats
    shift: Floats

    def of(self, y: Array) -> Array:
        """The wanted outputs (n, M) for the reference's."""
        return (y * self.gain + self.shift).astype(y.dtype)


@dataclass(frozen=True)
class Twin:
    """What the reference's layer says of a layer.

    Attributes:
        kept: which of the reference's filters the layer has left.
        change: what makes up for another gain and shift behind it; None where they are alike.
    """

    kept: Indices
    change: Change | None

    def outputs(self, y: Array) -> Array:
        """The outputs (n, M) that are wanted, of all the reference's."""
        left: Array = y[:, self.kept]
        return left if self.change is None else self.change.of(left)


def find_twins(
    model: onnx.ModelProto, reference: onnx.ModelProto, layers: Mapping[str, Geometry]
) -> tuple[dict[str, Twin], list[Skipped]]:
    """The twins of layers by name, and why others have none."""
    theirs = {x.name: x for x in find_plain_layers(reference)}
    left, before = kept_channels(model), kept_channels(reference)
    turned = in_other_basis(model, reference)
    users = readers(model), readers(reference)
    constants = Constants(model), Constants(reference)
    found: dict[str, Twin] = {}
    skipped: list[Skipped] = []
    for name, geometry in layers.items():
        layer, twin = geometry.layer, theirs.get(name)
        if twin is None or twin.op != layer.op or twin.kernel != layer.kernel:
            skipped.append(Skipped(name, "the reference has no such layer"))
            continue
        if name in turned:
            skipped.append(Skipped(name, OTHER_BASIS))
            continue
        kept = kept_positions(layer, twin, left.get(name), before.get(name))
        if kept is None:
            reason = "which of the reference's filters it has left is not recorded"
            skipped.append(Skipped(name, reason))
            continue
        mine = affine_behind(model, users[0], constants[0], layer)
        other = affine_behind(reference, users[1], constants[1], twin)
        found[name] = Twin(kept, _change(mine, other, kept))
    return found, skipped


def _change(mine: Affine, theirs: Affine, kept: Indices) -> Change | None:
    gain, shift = theirs.gain[kept], theirs.shift[kept]
    if np.array_equal(gain, mine.gain) and np.array_equal(shift, mine.shift):
        return None
    heard = loud(mine.gain)
    divisor = np.where(heard, mine.gain, 1.0)
    return Change(
        np.where(heard, gain / divisor, 1.0), np.where(heard, (shift - mine.shift) / divisor, 0.0)
    )
