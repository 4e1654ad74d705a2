"""How large the factors of channels have to be so that one step size suits all inputs of a filter.

A filter has one step Δ for all its weights. If the weights of input channel c are smaller than the
others', Δ is coarse for them. Scaling the channel by s_c and its weights by 1/s_c changes nothing
but that: with s_c the root mean square of the weights, every channel gets weights of one size.
Factors are in octaves (log2), so that 0 means "as it is".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LARGEST = 6.0  # octaves up or down
_TURNS, _SETTLED = 50, 1e-3
_AT_ONCE = 64  # filters
_DIGITS = 8  # binary ones of a factor: as many as bfloat16 has


def channel_energy(rows: npt.NDArray[np.generic], channel: Integers) -> Floats:
    """Mean square (M, C) of the weights that each filter has for each channel.

    Args:
        rows: weights (M, K), of any float type.
        channel: which channel, 0 … C − 1, each column reads, (K,).
    """
    order = np.argsort(channel, kind="stable")
    _, starts, count = np.unique(channel[order], return_index=True, return_counts=True)
    energy = np.empty((len(rows), count.size))
    for i in range(0, len(rows), _AT_ONCE):
        squares = np.square(rows[i : i + _AT_ONCE, order].astype(np.float64))
        energy[i : i + _AT_ONCE] = np.add.reduceat(squares, starts, axis=1) / count
    return energy


def wanted_octaves(energy: Floats, fixed: Mask) -> Floats:
    """What the filters of one layer (or group) want their input channels to be scaled by.

    Filters of unit size with channels of one size: rows and columns are scaled in turn (as in the
    balancing of a matrix by Sinkhorn), so it does not matter how either were scaled before.

    Args:
        energy: of `channel_energy`, (M, C).
        fixed: channels (C,) that cannot be scaled; the others are to come to their size.

    Returns:
        Octaves (C,) from the median channel, not below −`LARGEST`. That is what channels get whose
        weights are all 0: codes without a zero level are to add as little of them as can be. NaN
        everywhere if there is only one channel (a filter's step follows it anyway) or no weight
        but 0.
    """
    total = np.full(fixed.size, np.nan)
    live = energy[energy.any(axis=1)]
    known = live.any(axis=0)
    if fixed.size < 2 or not known.any():
        return total
    others = fixed & known
    total[known] = 0.0
    for _ in range(_TURNS):
        scaled = live * np.exp2(-2.0 * np.where(known, total, 0.0))
        size = np.sqrt((scaled / scaled.mean(axis=1, keepdims=True)).mean(axis=0))
        step = np.log2(size, where=known, out=np.zeros_like(size))
        # The median: a channel that is all but dead must not move those that are not.
        step -= float(np.median(step[others] if others.any() else step[known]))
        step[fixed] = 0.0
        before, total = total, np.fmax(total + step, -2.0 * LARGEST)
        if np.abs(total - before)[known].max() < _SETTLED:
            break
    total[others] = 0.0
    total[~known] = -LARGEST
    return np.asarray(np.clip(total, -LARGEST, None))


def common_octaves(wanted: Sequence[tuple[Integers, Floats]], fixed: Mask) -> Floats:
    """One compromise (C,) between layers that read the same channels.

    The root mean square of the factors that they want: one that is too small makes weights that
    stand out, and with them the step of whole filters; one that is too large only harms its own
    channel. Nobody's wish is 0, and so is that of channels that are fixed; limited to `LARGEST`.

    Args:
        wanted: channels and octaves for them, NaN for none.
        fixed: channels (C,) that cannot be scaled.
    """
    total, count = np.zeros(fixed.size), np.zeros(fixed.size)
    for channels, octaves in wanted:
        known = ~np.isnan(octaves)
        np.add.at(total, channels[known], np.exp2(2.0 * octaves[known]))
        np.add.at(count, channels[known], 1.0)
    mean = np.divide(total, count, out=np.ones_like(total), where=count > 0)
    return np.where(fixed, 0.0, np.clip(0.5 * np.log2(mean), -LARGEST, LARGEST))


def as_factors(octaves: Floats, *, exact: bool) -> Floats:
    """Factors 2^octaves, with few binary digits, so that a plan states them exactly.

    Args:
        octaves: any shape.
        exact: powers of two only: then scaling does not round.
    """
    if exact:
        return np.asarray(np.exp2(np.rint(octaves)))
    fraction, exponent = np.frexp(np.exp2(octaves))
    return np.asarray(np.ldexp(np.rint(np.ldexp(fraction, _DIGITS)), exponent - _DIGITS))
