"""Choose a factor for each channel that can be scaled, from the weights of all that read it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from onnx_esn.graph.layers import Layer
from onnx_esn.graph.number_formats import round_to
from onnx_esn.numerics.equalization import (
    as_factors,
    channel_energy,
    common_octaves,
    wanted_octaves,
)
from onnx_esn.passes.equalizing.rewriting import factor
from onnx_esn.passes.equalizing.scalable import Scalable

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def choose_factors(s: Scalable) -> Floats:
    """Factors by label: 1 where a channel is locked, or nobody gains.

    Where values of half precision are involved, factors are powers of two, and not above 1 where
    float16 could overflow.
    """
    if not len(s.classes):
        return np.ones(1)
    wishes = [w for index, slot in s.claims for w in _wishes(s, index, slot)]
    octaves = common_octaves(wishes, np.asarray(s.classes.locked))
    types = {s.propagation.facts.types.get(name) for name in s.propagation.labels}
    exact = bool(types & set(_HALVES))
    if TensorProto.FLOAT16 in types:
        octaves = np.minimum(octaves, 0.0)
    factors = np.append(as_factors(octaves, exact=exact), 1.0)[s.classes.of]
    return without_rounding(s, factors) if exact else factors


def _wishes(s: Scalable, index: int, slot: int) -> list[tuple[Integers, Floats]]:
    """Classes and what a layer's filters want for them; one entry for each group."""
    layer = s.layers.get(index)
    inputs = [c for c in s.claims[index, slot] if c.role == "input"]
    if layer is None or slot != layer.slot or not inputs:
        return []
    columns = _columns(s, layer, inputs[0].labels)
    rows = layer.as_filters(s.constants.value(layer.weight, keep=False))
    rows = rows.reshape(layer.groups, -1, columns.shape[1])
    found = []
    for filters, classes in zip(rows, columns, strict=True):
        mine, channel = np.unique(classes, return_inverse=True)
        # Columns without a label come first, and are as fixed as locked ones.
        fixed = (mine < 0) | np.append(s.classes.locked, True)[mine]
        if mine.size > 1 and not fixed.all():
            octaves = wanted_octaves(channel_energy(filters, channel.reshape(-1)), fixed)
            found.append((mine[mine >= 0], octaves[mine >= 0]))
    return found


def _columns(s: Scalable, layer: Layer, labels: Integers) -> Integers:
    """Class (G, K) that each column of a group's filters reads; −1 for those without a label."""
    wide = np.broadcast_to(labels, layer.weight_shape)
    if layer.op == "ConvTranspose":
        first = wide[:, 0]
    else:
        first = np.moveaxis(wide, layer.filter_axis, 0)[:: layer.filters // layer.groups]
    return np.asarray(s.classes.of[first.reshape(layer.groups, -1)], np.int64)


def without_rounding(s: Scalable, factors: Floats) -> Floats:
    """Factors of 1 for classes that a parameter of half precision cannot follow exactly."""
    while True:
        spoiled = np.zeros(len(s.classes) + 1, np.bool_)
        for claims in s.claims.values():
            name = claims[0].tensor
            kind = s.propagation.facts.types.get(name)
            by = factor(claims, factors)
            if kind not in _HALVES or (by == 1).all():
                continue
            old = s.constants.value(name, keep=False).astype(np.float64)
            wrong = round_to(old * by, kind) != old * by
            if wrong.any():
                for claim in claims:
                    labels = np.broadcast_to(claim.labels, old.shape)[wrong]
                    spoiled[s.classes.of[np.unique(labels)]] = True
        spoiled[-1] = False
        moving = spoiled[s.classes.of] & (factors != 1)
        if not moving.any():
            return factors
        factors = np.where(moving, 1.0, factors)
