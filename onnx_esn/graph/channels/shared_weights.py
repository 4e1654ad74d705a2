"""Layers that share a weight lose the same channels, so that they can go on sharing it.

The branches of a siamese network, a detector's head on every level, a recurrence that was laid
open: each use of the weight issues labels of its own, and without a tie each would lose what suits
it best and get a copy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from onnx_esn.graph.channels.carrying import push
from onnx_esn.graph.channels.labels import Classes, Labels, LabelSpace, Mask, line
from onnx_esn.graph.channels.propagation import Claim
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layers import Layer

Place = tuple[str, int]  # stored tensor, axis
_CONTRACTED = ("filter", "input")


def tie_uses(
    space: LabelSpace, constants: Constants, claims: Sequence[Claim], classes: Classes
) -> Classes:
    """Tie the labels of all uses of a weight, position by position.

    Only where both may go: what has to stay in one use keeps nothing in another, which then gets
    a copy (`split_weights`). Per-channel parameters are left out: an exporter stores zeros of one
    length once.

    Args:
        space: where to tie.
        constants: the parameters.
        claims: what reads them.
        classes: the tied sets as they stand.
    """
    free = np.append(~classes.locked, False)
    tied = False
    for uses in _uses(constants, claims).values():
        if len(uses) == 1:
            continue
        last = np.zeros_like(uses[0])
        for labels in uses:
            may_go = free[classes.of[labels]]
            both = may_go & (last > 0)
            if (classes.of[last[both]] != classes.of[labels[both]]).any():
                space.tie(last[both], labels[both], "")
                tied = True
            last = np.where(may_go, labels, last)
    return space.classes() if tied else classes


def split_weights(
    constants: Constants, claims: Sequence[Claim], layers: Sequence[Layer], removed: Mask
) -> list[tuple[list[str], int]]:
    """Weights that several layers shared, but that lose different channels in them.

    Args:
        constants: the parameters.
        claims: what reads them.
        layers: the layers.
        removed: per label, whether it goes.

    Returns:
        For each the names of its layers, and as how many weights it is stored from now on.
    """
    lost: dict[tuple[int, int], set[tuple[Place, bytes]]] = defaultdict(set)
    for claim in claims:
        for axis in _axes(claim):
            gone = np.flatnonzero(removed[line(claim.labels, axis)])
            if gone.size:
                place = _stored_place(constants, claim.tensor, axis)
                lost[claim.node, claim.slot].add((place, gone.tobytes()))
    sharing: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        sharing[layer.source].append(layer)
    result = []
    for users in sharing.values():
        forms = {frozenset(lost.get((x.index, x.slot), ())) for x in users}
        if len(forms) > 1:
            result.append(([x.name for x in users], len(forms)))
    return result


def _uses(constants: Constants, claims: Sequence[Claim]) -> Mapping[Place, list[Labels]]:
    """By stored weight and axis, the labels along it of each use."""
    places: dict[Place, list[Labels]] = defaultdict(list)
    for claim in claims:
        for axis in _axes(claim):
            place = _stored_place(constants, claim.tensor, axis)
            places[place].append(line(claim.labels, axis))
    return places


def _axes(claim: Claim) -> list[int]:
    """The axes of a layer's weight that have labels."""
    if claim.role not in _CONTRACTED or claim.labels.ndim < 2:
        return []
    return [axis for axis, n in enumerate(claim.labels.shape) if n > 1]


def _stored_place(constants: Constants, tensor: str, axis: int) -> Place:
    """Which axis of which stored tensor a parameter's axis is."""
    while tensor not in constants.initializers and tensor in constants.producer:
        node = constants.producer[tensor]
        pushed = push(constants, node, {axis: ()})
        if not pushed or not pushed.get(0):
            break
        tensor, (axis,) = node.input[0], pushed[0]
    return tensor, axis
