"""Quantized filters that lose their bits one by one.

Source: Jung et al. (2019), QIL, section 3.4: networks of few bits start from what was learned with
one bit more (5 → 4 → 3 → 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from onnx_esn.numerics.learning.intervals import Intervals, intervals, narrowed
from onnx_esn.numerics.midrise import Floats

Filters = dict[str, Intervals]


def descending(
    own: Filters, weights: Mapping[str, Floats], start_bits: int | None
) -> Iterator[tuple[Filters, bool]]:
    """Intervals by layer, each time with fewer bits, and whether they are the last.

    Each is made of the one before as it is by then: who learns them learns them between two turns.
    The last have as many bits as `own`.

    Args:
        own: intervals of the bits that are wanted; without a `start_bits` above them, all there is.
        weights: by layer, the float filters (M, K) to begin with.
        start_bits: of the first turn; filters that are to keep more have theirs throughout.
    """
    bits = {name: x.bits for name, x in own.items()}
    least = min((int(b[b > 0].min()) for b in bits.values() if b.any()), default=0)
    if start_bits is None or start_bits <= least:
        yield own, True
        return
    now = {name: _widened(x, weights[name], start_bits) for name, x in own.items()}
    for width in range(start_bits, least - 1, -1):
        now = {
            name: narrowed(x, np.where(bits[name] > 0, np.maximum(bits[name], width), 0))
            for name, x in now.items()
        }
        yield now, width == least


def _widened(own: Intervals, W: Floats, bits: int) -> Intervals:
    """Filters of fewer bits start from their float weights with so many, others as they are."""
    fewer = (own.bits > 0) & (own.bits < bits)
    width = np.where(fewer, bits, own.bits)
    step = np.where(fewer, own.quantizer.optimal_step(W, width), own.step)
    codes = np.where(fewer[:, None], own.quantizer.encode(W, step, width), own.codes())
    fresh = intervals(W, codes, step, width, own.quantizer)
    for name, value in fresh.parameters.items():
        value[~fewer] = own.parameters[name][~fewer]
    return Intervals(**fresh.parameters, bits=width, quantizer=own.quantizer)
