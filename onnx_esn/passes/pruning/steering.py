"""What the user says of single layers: which keep their filters, and what share the others lose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layers.patterns import NOT_CHOSEN, left_out, match_layers
from onnx_esn.plans import PruningRatios

Locks = list[tuple[Labels, str]]


def filters_of(analysis: Analysis) -> dict[str, Labels]:
    """The labels of each layer's filters, by layer."""
    first = analysis.first_labels
    return {
        x.name: np.arange(first[x.index], first[x.index] + x.filters)
        for x in analysis.layers
        if x.index in first
    }


def locked_layers(analysis: Analysis, only: Sequence[str], exclude: Sequence[str]) -> Locks:
    """Labels that must stay because of `only` and `exclude`, with the reason.

    A class goes or stays as a whole, so one layer that is left out keeps what is tied to it too;
    the reason then names that layer.

    Raises:
        OptionError: a pattern matches no layer.
    """
    reasons = left_out(analysis.layers, only, exclude)
    of = analysis.classes.of
    layers = filters_of(analysis)
    chosen: dict[int, str] = {}  # a chosen layer that holds filters of the class
    for name, labels in layers.items():
        if only and name not in reasons:  # without `only`, millions of entries for nothing
            chosen |= {c: name for c in of[labels].tolist() if c not in chosen}
    locks: Locks = []
    for name, labels in layers.items():
        reason = reasons.get(name)
        if reason == NOT_CHOSEN:
            tied = np.isin(of[labels], list(chosen))
            if tied.any():
                inside = chosen[int(of[labels][tied][0])]
                why = f"{inside!r} shares channels with {name!r}, which no 'only' pattern matches"
                locks.append((labels[tied], why))
            locks.append((labels[~tied], reason))
        elif reason:
            locks.append((np.flatnonzero(np.isin(of, of[labels])), reason))
    return locks


def group_ratios(
    analysis: Analysis, wanted: PruningRatios
) -> tuple[NDArray[np.float64], list[Skipped]]:
    """The ratio of each channel group (n,): the smallest of its layers'; and where they differ.

    Raises:
        OptionError: a pattern matches no layer.
    """
    matched = match_layers(analysis.layers, wanted.ratios, "ratios")
    default = wanted.default or 0.0
    asked = {
        x.name: wanted.ratios[matched[x.name]] if x.name in matched else default
        for x in analysis.layers
    }
    ratios, notes = np.zeros(len(analysis.groups)), []
    for i, group in enumerate(analysis.groups):
        own = {m.node: asked[m.node] for m in group.members if m.node in asked}
        least = min(own, key=own.__getitem__, default=None)
        if least is None:
            continue
        ratios[i] = own[least]
        if group.prunable and max(own.values()) > ratios[i]:
            notes.append(
                Skipped(
                    group.name,
                    f"its layers share channels and have ratios from {ratios[i]:g} to "
                    f"{max(own.values()):g}: the smallest holds, that of {least!r}",
                )
            )
    return ratios, notes
