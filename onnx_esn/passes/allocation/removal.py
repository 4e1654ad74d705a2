"""Remove given filters, with everything coupled to them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Mask
from onnx_esn.passes.base import PassResult
from onnx_esn.passes.layerwise.input_moments import InputMoments
from onnx_esn.passes.pruning.absorption import consumed_tensors, fold_constants
from onnx_esn.passes.pruning.consistent_rewriting import rewrite_or_lock
from onnx_esn.passes.pruning.result import pruning_result

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def remove_classes(
    analysis: Analysis, gone: Indices, moments: Mapping[str, InputMoments]
) -> tuple[PassResult, dict[str, Indices]]:
    """Remove classes of channels; their means go into the biases of those who read them.

    Args:
        analysis: the labelled model, with all locks.
        gone: classes to remove. What the graph cannot do without stays.
        moments: by layer name, for the means.

    Returns:
        The pruning, and by layer name the filters that are left.
    """
    lost = lost_labels(analysis, gone)
    analysis, removed, rewritten = rewrite_or_lock(analysis, [], partial(lost_classes, lost=lost))
    means = _means(analysis, removed, moments)
    folded, notes = fold_constants(analysis, removed, "mean", means)
    left = {}
    for layer in analysis.layers:
        first = analysis.first_labels.get(layer.index)
        if first is not None:
            left[layer.name] = np.flatnonzero(~removed[first : first + layer.filters])
    return pruning_result(analysis, removed, rewritten, folded, notes), left


def lost_labels(analysis: Analysis, gone: Indices) -> Mask:
    """Per label, whether it goes with these classes, in their order; no tensor is left empty."""
    mask = np.zeros(len(analysis.classes), np.bool_)
    mask[gone] = True
    for classes in analysis.constraints:
        if mask[classes].all():
            # The last in the order is the one that is missed most.
            order = {int(c): i for i, c in enumerate(gone)}
            mask[max(classes, key=lambda c: order.get(int(c), -1))] = False
    return analysis.removed_labels(mask)


def lost_classes(analysis: Analysis, lost: Mask) -> Mask:
    """Per class, whether it goes: if all that it holds is lost.

    Args:
        analysis: perhaps with more locks than the one of `lost`, which may join classes.
        lost: per label.
    """
    stays = np.ones(len(analysis.classes), np.bool_)
    held = analysis.classes.of[: lost.size]
    stays[np.unique(held[lost & (held >= 0)])] = False
    stays[np.unique(held[~lost & (held >= 0)])] = True
    return ~stays & ~analysis.classes.locked


def _means(
    analysis: Analysis, removed: Mask, moments: Mapping[str, InputMoments]
) -> dict[str, Floats]:
    """Channel means of tensors: what the middle tap of a layer that reads them sees."""
    wanted = consumed_tensors(analysis, removed)
    found: dict[str, Floats] = {}
    for layer in analysis.layers:
        data = analysis.model.graph.node[layer.index].input[0 if layer.kernel else 1 - layer.slot]
        if layer.name in moments and data in wanted and data not in found:
            taps = int(np.prod(layer.kernel, dtype=np.int64))
            mean = moments[layer.name].mean.reshape(-1, taps)
            if len(mean) == analysis.facts.shapes[data][wanted[data]]:
                found[data] = mean[:, taps // 2]
    return found
