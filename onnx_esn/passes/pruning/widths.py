"""Widths that a layer may end up with: multiples of a number, at least some filters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_esn.errors import OptionError
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels
from onnx_esn.passes.pruning.steering import filters_of

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def check_widths(round_to: int, min_width: int) -> None:
    """Refuse numbers below 1."""
    for name, value in (("round_to", round_to), ("min_width", min_width)):
        if value < 1:
            raise OptionError(f"{name} must be at least 1, not {value}")


def give_back(
    analysis: Analysis, removed: Mask, score: Floats, round_to: int, min_width: int = 1
) -> Mask:
    """Give classes back, best first, until every layer that loses filters has a width that it may.

    Args:
        analysis: the labelled model.
        removed: per class.
        score: per class; the largest comes back first.
        round_to: widths of layers that lose filters are multiples of this.
        min_width: filters that every layer keeps; one with fewer keeps all.
    """
    if round_to == 1 and min_width == 1:
        return removed
    removed = removed.copy()
    layers = {name: analysis.classes.of[x] for name, x in filters_of(analysis).items()}

    def fits(of: Labels) -> bool:
        kept = int((~removed[of]).sum())
        return kept == of.size or (kept % round_to == 0 and kept >= min_width)

    for group in analysis.groups:
        members = [layers[m.node] for m in group.members if m.node in layers]
        gone = group.classes[removed[group.classes]]
        back = list(gone[np.argsort(score[gone], kind="stable")])
        while back and not all(fits(of) for of in members):
            removed[back.pop()] = False
    return removed
