"""Which channels go by criterion `reconstruction`: those whose readers can do best without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.passes.allocation.joint import decide
from onnx_esn.passes.allocation.measuring import Losses, measure_losses
from onnx_esn.passes.allocation.removal import lost_classes, lost_labels
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.pruning.macs import MacCounter

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PASSES = 5.0  # over all images, for the probes


def channel_losses(
    model: onnx.ModelProto,
    images: CalibrationSet,
    *,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch_size: int = 64,
) -> Losses:
    """What the model would lose with each channel; see `measure_losses`."""
    return measure_losses(
        standard_form(model, shapes=shapes),
        images,
        passes=PASSES,
        only=only,
        exclude=exclude,
        input_shape=shapes,
        quantize=False,
        options=WalkOptions(batch_size=batch_size),
    )


def class_losses(losses: Losses, analysis: Analysis) -> Floats:
    """Score (G,) of each class of an analysis: what the outputs lose when it goes in its turn.

    Infinite for classes of which nothing is known: they stay.

    Args:
        losses: measured on the same model.
        analysis: perhaps with more locks than the one of `losses`.
    """
    score = np.full(len(analysis.classes), np.inf)
    of_label = losses.analysis.classes.of
    for found in losses.curves:
        # What a group loses at a width cannot be less than at a wider one.
        rise = np.diff(found.curve.loss)
        turn = np.maximum.accumulate(rise) + 1e-12 * np.arange(rise.size)
        for place, value in zip(found.curve.order, turn, strict=True):
            labels = np.flatnonzero(of_label == place)
            for again in np.unique(analysis.classes.of[labels]):
                if again >= 0:
                    old = score[again]
                    score[again] = value if np.isinf(old) else max(old, value)
    return score


def classes_to_target(
    losses: Losses, analysis: Analysis, target: float, round_to: int, min_width: int
) -> Mask:
    """Per class, whether it goes, so that as little as possible is lost at `target` MACs.

    Raises:
        BudgetError: the target cannot be reached.
    """
    counted = MacCounter(losses.analysis)(np.zeros(losses.analysis.classes.of.size, np.bool_))
    known = sum(x.macs or 0 for x in losses.view.layers)
    found = decide(
        losses,
        target * known / counted,
        bits=1,
        round_to=round_to,
        min_width=min_width,
        quantizing=False,
    )
    return lost_classes(analysis, lost_labels(losses.analysis, found.gone))
