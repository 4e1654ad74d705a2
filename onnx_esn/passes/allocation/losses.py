"""What the model would lose: by each channel that goes, and by each bit a filter does without.

Both in one unit, the divergence of the outputs that is to be expected: the error energy in a
layer's outputs, relative to the energy of those, times the layer's sensitivity.

- Channels: those who read them are refitted (`numerics.elimination`); the loss of a group's width
  is what the readers then still get wrong.
- Bits: each filter's error after compensated rounding at 1 … 4 bits; each further one quarters it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.movement import expand
from onnx_esn.numerics.compensation import compensated_codes, inputs
from onnx_esn.numerics.elimination import Consumer, Elimination, eliminate, refit
from onnx_esn.numerics.midrise import MAX_BITS, Floats
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.numerics.width_costs import WidthCurve
from onnx_esn.passes.allocation.sensitivity import Prober
from onnx_esn.passes.layers.reads import contracted, is_plain
from onnx_esn.passes.layerwise.input_moments import InputMoments
from onnx_esn.passes.quantizing.quantizable import SHOWS_A_GRID

Integers = npt.NDArray[np.int64]

# Shares of a group at which the divergence is measured, and how steep a curve may be.
_PROBED = (0.2, 0.45)
_POWERS = (0.6, 2.5)
_MEASURED = 4  # bits up to which the error is measured
_FACTORS = (0.7, 0.85, 1.0, 1.2)
_SWEEPS = 1


@dataclass(frozen=True, eq=False)
class GroupCurve:
    """The loss of the widths of one group.

    Attributes:
        group: its index in `Analysis.groups`.
        curve: classes in the order in which they go, and what that loses.
        least: classes that leave every reader's filters weights enough to be quantized.
    """

    group: int
    curve: WidthCurve
    least: int = 1

    @property
    def for_grids(self) -> WidthCurve:
        """The curve of the widths at which all readers can be quantized."""
        curve = self.curve
        kept = curve.stays + len(curve.order) - np.arange(curve.loss.size)
        few = (kept < self.least) & (kept < kept[0])  # as it is it may stay
        return replace(curve, loss=np.where(few, np.inf, curve.loss))


def input_classes(analysis: Analysis, layer: Layer) -> Integers | None:
    """Class (C,) of each input channel of a plain layer, −1 where it stays; None if unknown."""
    if not is_plain(layer):
        return None
    data, axis = contracted(analysis, layer)
    labels = analysis.propagation.labels.get(data)
    shape = analysis.facts.shapes.get(data)
    if labels is None or shape is None:
        return None
    full = np.moveaxis(expand(labels, shape, [axis]), axis, 0).reshape(shape[axis], -1)[:, 0]
    return free_classes(analysis, full)


def filter_classes(analysis: Analysis, layer: Layer) -> Integers:
    """Class (M,) of each filter, −1 where it stays."""
    first = analysis.first_labels.get(layer.index)
    if first is None:
        return np.full(layer.filters, -1)
    return free_classes(analysis, np.arange(first, first + layer.filters))


def free_classes(analysis: Analysis, labels: npt.NDArray[np.integer]) -> Integers:
    """Class of each label, −1 where that is locked."""
    of = analysis.classes.of[labels].astype(np.int64)
    locked = np.append(analysis.classes.locked, True)
    return np.where(locked[of], -1, of)


@dataclass(frozen=True, eq=False)
class _Read:
    """How one group of one layer's filters reads channels."""

    layer: str
    index: int
    consumer: Consumer


def width_curves(
    analysis: Analysis,
    moments: Mapping[str, InputMoments],
    weights: Mapping[str, float],
    prober: Prober | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[GroupCurve]:
    """The curve of each group whose channels are read by a layer with moments.

    Args:
        analysis: the labelled model.
        moments: by layer name.
        weights: what each layer's relative error counts, by name (1 where it is missing).
        prober: measures the divergence at two widths of each group, to which the curve is fitted;
            None: the curve is what the readers get wrong, times their weights.
        progress: called with (groups done, groups).
    """
    reads = [r for layer in analysis.layers for r in _reads(analysis, layer, moments, weights)]
    curves = []
    for index, group in enumerate(analysis.groups):
        mine = [r for r in reads if np.isin(r.consumer.owner, group.classes).any()]
        if group.prunable and mine:
            found = eliminate([r.consumer for r in mine], group.classes, keep=0)
            loss = found.loss
            if prober is not None:
                loss = _measured(found, mine, prober)
            least = max(_least(r.consumer.owner, group.classes) for r in mine)
            curves.append(GroupCurve(index, WidthCurve(found.order, loss), least))
        if progress is not None:
            progress(index + 1, len(analysis.groups))
    return curves


def _least(owner: Integers, classes: npt.NDArray[np.integer]) -> int:
    """Classes of a group that leave a filter enough weights; owner is (d,), of each weight."""
    if not np.isin(owner, classes).all():
        return 1  # others stay
    return -(-SHOWS_A_GRID // int(np.unique(owner, return_counts=True)[1].min()))


def _measured(found: Elimination, reads: list[_Read], prober: Prober) -> Floats:
    """The curve a·loss^p through the divergences at two widths."""
    points = []
    for share in _PROBED:
        n = max(1, round(share * len(found.order)))
        if n >= len(found.order) or found.loss[n] <= 0:
            continue
        divergence = prober.divergence(_refitted(reads, found.order[:n], prober.moments))
        if 0 < divergence < np.inf:
            points.append((np.log(found.loss[n]), np.log(divergence)))
    if not points:
        return found.loss
    (x0, y0), (x1, y1) = points[0], points[-1]
    power = float(np.clip((y1 - y0) / (x1 - x0), *_POWERS)) if x1 > x0 else 1.0
    with np.errstate(divide="ignore"):
        log_loss = np.log(found.loss)
    return np.asarray(np.exp((y0 + y1) / 2 + power * (log_loss - (x0 + x1) / 2)))


def _refitted(
    reads: list[_Read], gone: Integers, moments: Mapping[str, InputMoments]
) -> dict[str, Floats]:
    """Weights of the readers without some classes, refitted on even images to what they made."""
    weights: dict[str, Floats] = {}
    for read in reads:
        m = moments[read.layer]
        W = weights.setdefault(read.layer, m.W.copy())
        H, W0 = m.half[read.index].astype(np.float64), m.W[read.index]
        keep = np.flatnonzero(~np.isin(read.consumer.owner, gone))
        W[read.index] = 0.0
        if keep.size:
            W[read.index][:, keep] = refit(H, W0 @ H, keep, W0)
    return weights


def _reads(
    analysis: Analysis,
    layer: Layer,
    moments: Mapping[str, InputMoments],
    weights: Mapping[str, float],
) -> list[_Read]:
    m = moments.get(layer.name)
    classes = None if m is None else input_classes(analysis, layer)
    if (
        m is None
        or classes is None
        or layer.depthwise
        or layer.index in analysis.propagation.groups
    ):
        return []
    energy = m.energy
    if energy <= 0:
        return []
    G, _, d = m.W.shape
    owner = np.repeat(classes.reshape(G, -1), d // (classes.size // G), axis=1)
    weight = weights.get(layer.name, 1.0) / energy
    return [
        _Read(layer.name, g, Consumer(m.H[g], m.W[g] * m.gain[g][:, None], owner[g], weight))
        for g in range(G)
    ]


def bit_losses(
    moments: InputMoments,
    weight: float,
    quantizer: Quantizer = MID_RISE,
    filters: Floats | None = None,
    absent: Floats | None = None,
) -> Floats:
    """Loss (M, 9) of each filter of a layer at 0 … 8 bits.

    Args:
        moments: of the layer.
        weight: what its relative error counts.
        filters: what the error of each filter (M,) counts beside the others'; None: all alike.
        absent: the same where it gets 0 bits; None: as with bits.
        quantizer: the grid.
    """
    G, m, _ = moments.W.shape
    H = inputs(moments.H)
    loss = np.zeros((G, m, MAX_BITS + 1))
    loss[..., 0] = moments.errors(np.zeros_like(moments.W))
    for b in range(1, _MEASURED + 1):
        if b < quantizer.least_bits:
            loss[..., b] = loss[..., 0]
            continue
        codes, step = compensated_codes(
            moments.W, H, b, quantizer=quantizer, factors=_FACTORS, sweeps=_SWEEPS, survivors=1
        )
        loss[..., b] = np.minimum(moments.errors(codes * step[..., None]), loss[..., b - 1])
    for b in range(_MEASURED + 1, MAX_BITS + 1):
        loss[..., b] = loss[..., b - 1] / 4.0
    energy = loss[..., 0].sum()
    loss *= weight / energy if energy > 0 else 0.0
    rows = loss.reshape(G * m, -1)
    without = rows[:, 0].copy()
    if filters is not None:
        rows = rows * filters[:, None]
    if absent is not None:
        rows[:, 0] = without * absent
    return np.asarray(rows)
