"""Write linear tensors in another basis of their channels, in which few bits do the least harm.

Between a projection without activation and what reads it (the residual streams of MobileNetV2 and
its kin, factorised layers, a projection in front of a classifier), channels are a basis like any
other. The layers at both ends take the change; the outputs stay what they are, up to the rounding
of weights, and nothing is added to the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_esn.errors import PlanError, first_few
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import find_layers
from onnx_esn.graph.weights import read_weight
from onnx_esn.numerics.basis import balanced_basis
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.layers.patterns import left_out
from onnx_esn.passes.rotating.counterparts import Beside
from onnx_esn.passes.rotating.rewriting import Basis, by_channel, folded, in_new_bases
from onnx_esn.passes.rotating.streams import Stream, find_streams
from onnx_esn.plans import Rotation

_EXTREME = 1e12


@dataclass(frozen=True)
class Rotate:
    """Balance and turn the channels of every linear tensor.

    `details`: `rotated`, a list with the `channels` of each stream and the names of the layers that
    it is `made_by` and `read_by`.

    Attributes:
        seed: draws the turns.
        only, exclude: patterns on the layers whose weights may change.
        layers: or else the names of those that have to change: what `rotation` noted.
        input_shape: sizes of dynamic axes, by input.
    """

    seed: int = 0
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    layers: tuple[str, ...] | None = None
    input_shape: Mapping[str, Sequence[int]] | None = None

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Rotate a model in standard form.

        Raises:
            OptionError: a pattern fits no layer.
            PlanError: `layers` names some that no linear tensors lie between in this model.
        """
        return self.beside(model)[0]

    def beside(
        self, model: onnx.ModelProto, *others: onnx.ModelProto
    ) -> tuple[PassResult, list[onnx.ModelProto]]:
        """Rotate a model, and others so that their layers go on making the same channels.

        The basis is that of the model's weights. A channel that the model has lost stays a
        direction of its own in the others. What one of them has not is rotated in none.

        Args:
            model: in standard form.
            others: the models that it was pruned from, or that differ from it in values only.

        Raises:
            OptionError, PlanError: see `__call__`.
            ModelError: what a model records of its pruning is damaged.
        """
        constants = Constants(model)
        layers = find_layers(model, constants, Facts(sizes={}))
        if self.layers is not None:
            kept = {x.name for x in layers} - set(self.layers)
        else:
            kept = set(left_out(layers, self.only, self.exclude))
        streams = find_streams(model, constants, kept=kept, shapes=self.input_shape)
        grams = {i: g for i, s in enumerate(streams) if (g := _grams(s, constants)) is not None}
        sides = [Beside(model, other, self.input_shape) for other in others]
        twins = {i: [side.counterpart(streams[i]) for side in sides] for i in grams}
        found = [i for i in grams if None not in twins[i]]
        streams = [streams[i] for i in found]
        rng = np.random.default_rng(self.seed)
        bases = [Basis(*balanced_basis(P, C, rng)) for P, C in (grams[i] for i in found)]
        missing = set(self.layers or ()) - _names(streams)
        if missing:
            raise PlanError(
                f"the plan rotates what {first_few(sorted(missing))} makes or reads, which is not "
                "linear in this model; was the plan made for another one?"
            )
        details: dict[str, Any] = {"rotated": [_described(stream) for stream in streams]}
        if not streams:
            return PassResult(model, False, details=details), list(others)
        rotated = in_new_bases(model, constants, streams, bases)
        turned = []
        for at, side in enumerate(sides):
            own = [twin for i in found if (twin := twins[i][at]) is not None]
            turned.append(side.rotated(own, bases))
        return PassResult(rotated, True, details=details), turned


def rotation(pass_: Rotate, result: PassResult) -> Rotation | None:
    """What a plan notes of a rotation; None where nothing was rotated."""
    names = [n for s in result.details["rotated"] for n in (*s["made_by"], *s["read_by"])]
    return Rotation(pass_.seed, tuple(dict.fromkeys(names))) if names else None


def _names(streams: Sequence[Stream]) -> set[str]:
    made = {maker.layer.name for stream in streams for maker in stream.makers}
    return made | {layer.name for stream in streams for layer in stream.readers}


def _grams(stream: Stream, constants: Constants) -> tuple[Floats, Floats] | None:
    """P and C of `balanced_basis`; None where weights are so large or small that some might leave
    their type in another basis.
    """
    P, C = np.zeros((stream.width,) * 2), np.zeros((stream.width,) * 2)
    for maker in stream.makers:
        V, _ = folded(maker, read_weight(maker.layer, constants), constants)
        if not _moderate(V):
            return None
        P += V @ V.T
    for layer in stream.readers:
        W = by_channel(layer, read_weight(layer, constants).W)
        if not _moderate(W):
            return None
        columns = W.transpose(1, 0, 2).reshape(stream.width, -1)
        gram = columns @ columns.T
        # Layers that read the same stream count alike, however loud they are.
        C += gram / (float(np.trace(gram)) or 1.0)
    return P, C


def _moderate(W: Floats) -> bool:
    size = float(np.abs(W).max(initial=0.0))
    return size == 0.0 or 1 / _EXTREME < size < _EXTREME


def _described(stream: Stream) -> dict[str, Any]:
    return {
        "channels": stream.width,
        "made_by": [maker.layer.name for maker in stream.makers],
        "read_by": [layer.name for layer in stream.readers],
    }
