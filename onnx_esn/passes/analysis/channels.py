"""Channels against bits at equal ESN'_d: what a group's layers lose by fewer filters, or by fewer
bits, from 8 bits a filter on.

A group's layers are those that make its channels and those that read them. At n bits per MAC of
those, quantization gives every filter n bits; pruning keeps 8 bits and takes channels away in the
order of least loss (`allocation.losses`), as many as it must, for the makers lose filters and the
readers lose inputs; and the best of both is sought over all bits between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import MAX_BITS, Floats
from onnx_esn.passes.allocation.losses import GroupCurve, filter_classes, input_classes
from onnx_esn.passes.allocation.measuring import Losses
from onnx_esn.passes.base import Skipped

Integers = npt.NDArray[np.int64]
BITS_PER_MAC = (4, 3, 2, 1)


@dataclass(frozen=True)
class ChannelLoss:
    """Losses at one cost, in units of the outputs' expected divergence.

    Attributes:
        bits: n: the cost is n/8 of that at 8 bits.
        quantized: all channels, n bits a MAC.
        pruned: 8 bits, fewer channels; None where no width costs as little.
        pruned_kept: share of the channels that pruning leaves; None as well.
        best: the least loss of any width with any bits.
        best_kept: its share of channels.
        best_bits: its bits a MAC.
    """

    bits: int
    quantized: float
    pruned: float | None
    pruned_kept: float | None
    best: float
    best_kept: float
    best_bits: float

    @property
    def winner(self) -> str:
        """``quantize`` or ``prune``, if it has to be one of them."""
        return "prune" if self.pruned is not None and self.pruned < self.quantized else "quantize"


@dataclass(frozen=True)
class ChannelAnalysis:
    """One channel group; or the whole model, where all widths and bits are chosen together.

    Attributes:
        group: its name; "" for the model.
        channels: how many it has that can go.
        layers: names of its layers.
        cost: their ESN'_d in MAC·bit at 8 bits.
        losses: one for each of `BITS_PER_MAC`.
    """

    group: str
    channels: int
    layers: tuple[str, ...]
    cost: float
    losses: tuple[ChannelLoss, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """A layer of a group.

    Attributes:
        unit: MACs of a filter for each of its inputs (or for all, where `inputs` is None).
        filters: place (M,) of each filter in the group's order; −1: it stays.
        inputs: the same of each input channel (C,).
        loss: (M, 9) of each filter by bits.
    """

    unit: float
    filters: Integers
    inputs: Integers | None
    loss: Floats

    def cost(self, gone: int) -> float:
        """MACs that are left."""
        filters = float(_left(self.filters, gone).sum())
        inputs = 1.0 if self.inputs is None else float(_left(self.inputs, gone).sum())
        return self.unit * filters * inputs

    def lost(self, gone: int, bits: int) -> float:
        """Loss of the filters that are left."""
        return float(self.loss[_left(self.filters, gone), bits].sum())


def analyse_channels(losses: Losses) -> tuple[list[ChannelAnalysis], list[Skipped]]:
    """Each group whose loss is known, and why others are not compared."""
    found, skipped = [], []
    for curve in losses.curves:
        name = losses.analysis.groups[curve.group].name
        parts, missing = _parts(losses, curve)
        if missing:
            skipped.append(Skipped(name, f"the loss of fewer bits is not known of {missing}"))
        elif parts and len(curve.curve.order):
            found.append(_compared(name, curve, parts))
    return found, skipped


def _parts(losses: Losses, curve: GroupCurve) -> tuple[dict[str, Part], str]:
    """The layers of a group by name; instead, the name of one whose bits' loss is not known."""
    parts: dict[str, Part] = {}
    for name, part in layer_parts(losses, curve.curve.order):
        if (part.filters < 0).all() and (part.inputs is None or (part.inputs < 0).all()):
            continue
        if name not in losses.bits:
            return {}, name
        parts[name] = part
    return parts, ""


def layer_parts(losses: Losses, order: Integers) -> Iterator[tuple[str, Part]]:
    """All layers by name, with the places of their channels in an order of classes."""
    analysis = losses.analysis
    place = np.full(len(analysis.classes) + 1, -1)  # the last for −1
    place[order] = np.arange(len(order))
    labelled = {x.name: x for x in analysis.layers}
    for layer in losses.view.layers:
        if layer.macs_per_filter is None:
            continue
        own = labelled.get(layer.name)
        filters, inputs = np.full(layer.filters, -1), None
        if own is not None:
            filters = place[filter_classes(analysis, own)]
            if not layer.depthwise:
                inputs = _places(input_classes(analysis, own), layer.groups)
        at = None if inputs is None else place[inputs]
        unit = float(layer.macs_per_filter) / (1 if at is None else at.size)
        loss = losses.bits.get(layer.name, np.zeros((layer.filters, MAX_BITS + 1)))
        yield layer.name, Part(unit, filters, at, loss)


def _places(classes: Integers | None, groups: int) -> Integers | None:
    """Input classes that one filter reads, where those of all groups go together."""
    if classes is None or classes.size % groups:
        return None
    rows = classes.reshape(groups, -1)
    return rows[0] if (rows == rows[0]).all() else None


def _left(places: Integers, gone: int) -> npt.NDArray[np.bool_]:
    return (places < 0) | (places >= gone)


def _compared(name: str, curve: GroupCurve, parts: Mapping[str, Part]) -> ChannelAnalysis:
    n, loss = len(curve.curve.order), curve.curve.loss
    # One channel stays.
    costs = np.array([sum(p.cost(gone) for p in parts.values()) for gone in range(n)])
    widths = range(1, MAX_BITS + 1)
    bits = np.asarray(widths)
    total = loss[:n, None] + np.array(
        [[sum(p.lost(gone, b) for p in parts.values()) for b in widths] for gone in range(n)]
    )
    found = []
    for per_mac in BITS_PER_MAC:
        budget = costs[0] * per_mac * (1 + 1e-12)
        fits = costs[:, None] * bits <= budget
        gone = np.flatnonzero(fits[:, -1])
        best = np.unravel_index(np.where(fits, total, np.inf).argmin(), total.shape)
        g, b = int(best[0]), int(bits[best[1]])
        found.append(
            ChannelLoss(
                per_mac,
                float(total[0, per_mac - 1]),
                float(total[gone[0], -1]) if gone.size else None,
                float(1 - gone[0] / n) if gone.size else None,
                float(total[g, best[1]]),
                1 - g / n,
                float(b),
            )
        )
    return ChannelAnalysis(name, n, tuple(parts), float(costs[0] * MAX_BITS), tuple(found))
