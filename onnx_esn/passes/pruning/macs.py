"""MACs of a model once channels are gone, without rewriting it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.layers import Layer

Mask = NDArray[np.bool_]


def layer_factors(analysis: Analysis) -> list[tuple[Layer, list[Labels]]]:
    """Per layer, up to two vectors of labels: its MACs and its weights are in proportion to how
    many of each are left. What goes with no label is left out.
    """
    p = analysis.propagation
    reads = {(c.node, c.role): c.labels for c in p.claims if c.role != "param"}
    found = []
    for layer in analysis.layers:
        if layer.op == "ConvTranspose":
            data = p.labels.get(analysis.model.graph.node[layer.index].input[0])
            # The filters of one group; whole groups go with the input's channels.
            inner = None if layer.index in p.groups else reads.get((layer.index, "filter"))
            factors = [data, inner]
        else:
            factors = [p.labels.get(layer.output), reads.get((layer.index, "input"))]
        found.append((layer, [f.reshape(-1) for f in factors if f is not None]))
    return found


class MacCounter:
    """MACs of the model once labels are removed.

    A layer has as many as its output has elements (for a ConvTranspose: its input), times what
    each of them reads (is read by). Both fall with the labels that sit there.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.layers: list[tuple[int, list[Labels]]] = [
            (layer.macs, factors)
            for layer, factors in layer_factors(analysis)
            if layer.macs is not None
        ]

    def __call__(self, removed: Mask) -> int:
        """MACs with the labels in `removed` (per label) gone."""
        total = 0
        for macs, factors in self.layers:
            for labels in factors:
                macs = macs * int((~removed[labels]).sum()) // labels.size
            total += macs
        return total

    def governed(self, owner: Labels, owners: int) -> list[int]:
        """MACs that would go if all labels of an owner went, for each owner.

        A layer counts for the owner of its filters and for that of the channels it reads, so the
        figures add up to more than the model has.

        Args:
            owner: per label, 0 ≤ owner < owners, or -1 for none.
            owners: how many there are.
        """
        saved = [0] * owners
        for macs, factors in self.layers:
            held = [np.bincount(owner[x] + 1, minlength=owners + 1)[1:] for x in factors]
            for i in np.flatnonzero(np.sum(held, axis=0)) if held else ():
                left = macs
                for labels, n in zip(factors, held, strict=True):
                    left = left * (labels.size - int(n[i])) // labels.size
                saved[i] += macs - left
        return saved
