"""What the layers that stay do for the channels that go: a larger bias, weights added up."""

from __future__ import annotations

import numpy as np

from onnx_esn.graph.channels.labels import Mask
from onnx_esn.passes.exact.readers import Reader, Reading
from onnx_esn.passes.exact.values import Values
from onnx_esn.plans import FoldedConstant, MergedChannels


def take_over(
    reading: Reading, values: Values, removed: Mask
) -> tuple[tuple[MergedChannels, ...], tuple[FoldedConstant, ...]]:
    """What the layers that stay do for the channels that go.

    Args:
        reading: everything that reads channels.
        values: what they hold.
        removed: per label, whether it goes.

    Returns:
        Input channels whose weights are added up, and constants for the biases.
    """
    merged, folded = [], []
    for r in reading.readers:
        gone, kept = removed[r.labels], ~removed[r.filters]
        if not gone.any() or not kept.any():
            continue
        constants = values.constants(r.cells)
        unread, still = r.free_cells(constants, kept)
        spare = r.slots(unread | still)
        into, added = _partners(r, gone, gone & ~spare)
        if into:
            merged.append(MergedChannels(r.layer.name, r.axis, into, added))
        slots = gone & spare
        cells = np.broadcast_to(slots, r.cells.shape) if r.shared else slots.reshape(r.cells.shape)
        value = np.where(cells & still, constants, 0.0)
        groups = len(value)
        by_group = r.weights.reshape(groups, -1, r.weights.shape[1])
        delta = np.einsum("gmc,gc->gm", by_group, value).reshape(-1)[kept]
        if delta.any():
            folded.append(FoldedConstant(r.layer.name, tuple(float(v) for v in delta)))
    return tuple(merged), tuple(folded)


def _partners(r: Reader, gone: Mask, need: Mask) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each slot in need of one, the first slot that stays and reads the same."""
    if not need.any():
        return (), ()
    keys = r.keys()
    partner = {int(keys[i]): int(i) for i in np.flatnonzero(~gone)[::-1]}
    added = [int(i) for i in np.flatnonzero(need)]
    return tuple(partner[int(keys[i])] for i in added), tuple(added)
