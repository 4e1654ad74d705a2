"""Which filters may get 0 bits although their channels stay.

Where several layers write to one channel, as the branches of a residual sum do, a filter of one of
them can be left out: nothing is removed, and its bits go to others. A channel to which only one
layer writes goes as a whole or not at all, which is a matter of widths (`losses.width_curves`), as
it is where a depthwise layer hands the channel on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.allocation.losses import filter_classes

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


def shared_filters(analysis: Analysis) -> dict[str, Bools]:
    """Which filters (M,) of a layer write to a channel that others write to as well, by name."""
    writers = np.zeros(len(analysis.classes), np.int64)
    handed_on = np.zeros(len(analysis.classes), np.bool_)
    of_layer = dict(_classes(analysis))
    for layer in analysis.layers:
        classes = np.unique(of_layer[layer.name])
        classes = classes[classes >= 0]
        writers[classes] += 1
        if layer.depthwise:
            handed_on[classes] = True
    shared = (writers > 1) & ~handed_on
    found = {name: (classes >= 0) & shared[classes] for name, classes in of_layer.items()}
    return {name: filters for name, filters in found.items() if filters.any()}


def droppable(analysis: Analysis, losses: Mapping[str, Floats]) -> dict[str, Bools]:
    """Which filters (M,) of a layer may get 0 bits, by name.

    Of each layer the filter that would be missed most stays, and of each channel the writer.

    Args:
        analysis: the labelled model.
        losses: what each filter (M,) would be missed, by name of a layer of `shared_filters`.
    """
    shared, of_layer = shared_filters(analysis), dict(_classes(analysis))
    most = np.full(len(analysis.classes), -np.inf)
    for name, loss in losses.items():
        np.maximum.at(most, of_layer[name][shared[name]], loss[shared[name]])
    found = {}
    for name, loss in losses.items():
        may = shared[name].copy()
        may[may] = loss[may] < most[of_layer[name][may]]
        may[int(loss.argmax())] = False
        found[name] = may
    return found


def _classes(analysis: Analysis) -> Iterator[tuple[str, Integers]]:
    for layer in analysis.layers:
        yield layer.name, filter_classes(analysis, layer)
