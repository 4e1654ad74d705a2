"""Which channels go, and what is measured to know that."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.budgets import parse_target
from onnx_esn.errors import OptionError
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Mask
from onnx_esn.passes.allocation.channel_choice import (
    channel_losses,
    class_losses,
    classes_to_target,
)
from onnx_esn.passes.allocation.measuring import Losses
from onnx_esn.passes.pruning.absorption import consumed_tensors
from onnx_esn.passes.pruning.measuring import measure_channels
from onnx_esn.passes.pruning.options import RECONSTRUCTION, PruneOptions
from onnx_esn.passes.pruning.scores import MEASURED, class_scores, unnormalized_outputs
from onnx_esn.passes.pruning.selection import MacCounter, Selector
from onnx_esn.passes.pruning.steering import group_ratios
from onnx_esn.passes.selection.options import QCQP
from onnx_esn.passes.selection.program import Selection, select
from onnx_esn.plans import PruningRatios

Floats = NDArray[np.float64]


def choose(
    options: PruneOptions,
    analysis: Analysis,
    known: Mapping[str, Floats] | Losses,
    ratios: PruningRatios | None,
    solved: list[Selection],
) -> Mask:
    """Per class, whether it goes; a program that was solved is added to `solved`."""
    if options.selection == QCQP and isinstance(known, Mapping):
        selection = select(
            analysis,
            options.targets(),
            round_to=options.round_to,
            min_width=options.min_width,
            seconds=options.solver_time,
            variances=known,
        )
        solved.append(selection)
        return solved[-1].removed
    target = options.target_macs
    if target is not None:
        nothing = np.zeros(analysis.classes.of.size, np.bool_)
        macs = parse_target(target).resolve(MacCounter(analysis)(nothing))
    if isinstance(known, Mapping):
        score, filters = class_scores(analysis, options.criterion, known)
    else:
        if target is not None and options.scope != "layer":
            return classes_to_target(known, analysis, macs, options.round_to, options.min_width)
        score, filters = class_losses(known, analysis), _counts(analysis)
    limits = options.scope or "layer", options.round_to, options.min_width
    selector = Selector(analysis, score, filters, *limits)
    if ratios is not None:
        return selector.by_group_ratios(group_ratios(analysis, ratios)[0])
    if options.ratio is not None:
        return selector.by_ratio(options.ratio)
    return selector.by_macs(macs)


def measured(
    options: PruneOptions, analysis: Analysis, model: onnx.ModelProto
) -> Mapping[str, Floats] | Losses:
    """What the criterion takes from images: variances of outputs, or losses."""
    if options.criterion == RECONSTRUCTION:
        if options.images is None:
            raise OptionError("criterion reconstruction needs images (--images)")
        return channel_losses(
            model,
            options.images,
            only=options.only,
            exclude=options.exclude,
            shapes=options.input_shapes,
            batch_size=options.batch_size,
        )
    if options.images is None or options.criterion not in MEASURED:
        return {}
    tensors = unnormalized_outputs(analysis)
    found = measure_channels(analysis.executable, tensors, options.images, options.batch_size)
    return {name: m.variance for name, m in found.items()}


def means(options: PruneOptions, analysis: Analysis, removed: Mask) -> Mapping[str, Floats] | None:
    """Means of what consumers read of removed channels; None where they are not wanted."""
    if options.images is None or options.absorb != "mean" or not removed.any():
        return None
    tensors = consumed_tensors(analysis, removed)
    found = measure_channels(analysis.executable, tensors, options.images, options.batch_size)
    return {name: m.mean for name, m in found.items()}


def _counts(analysis: Analysis) -> Floats:
    """Filters of each class."""
    return class_scores(analysis, "l1-norm", ranking=False)[1]
