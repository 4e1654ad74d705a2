"""What each weight of a layer is multiplied with: input patches at some output positions.

Row r of a patch matrix (n, d) holds the inputs that one output position of one sample reads, in the
order of the weights of a filter (channel, then taps), so that a filter w (d,) makes w·x there.
Zero padding, and taps of a ConvTranspose that miss a position, are zeros. Which positions are taken
depends only on the seed, the sample's index and the number of positions, not on the batches, and is
the same for every layer whose output has that many positions.

The im2col form of a convolution: Chellapilla, Puri and Simard (2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """How a layer reads its input.

    Attributes:
        kernel: kernel size; () for a product with a matrix.
        strides, dilations: of the convolution, per spatial axis.
        pads: zeros before each spatial axis; of a ConvTranspose what is cut off there.
        transposed: whether it is a ConvTranspose.
        groups: groups of channels.
        axis: axis of the input that it contracts.
    """

    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    transposed: bool = False
    groups: int = 1
    axis: int = 1


def choose_positions(seed: int, sample: int, positions: int, wanted: int) -> Indices:
    """Sorted positions (min(wanted, positions),) of one sample: one in each of `wanted` strata."""
    if wanted >= positions:
        return np.arange(positions)
    edges = np.arange(wanted + 1) * positions // wanted
    drawn = np.random.default_rng([seed, sample, positions]).random(wanted)
    inside: Indices = (drawn * np.diff(edges)).astype(np.int64)
    return edges[:-1] + inside


def rows_at(value: Array, axis: int, at: Indices) -> Array:
    """Channels (n, C) of one sample (its batch axis removed) at flat positions of the others."""
    x = np.moveaxis(value, axis, 0)
    rows: Array = x.reshape(len(x), -1)[:, at].T
    return rows


def patches_at(value: Array, window: Window, out: tuple[int, ...], at: Sequence[Indices]) -> Array:
    """Patches (G, n, d) of samples (B, C, *spatial), those of each sample behind each other.

    Args:
        value: the input tensor.
        window: how the layer reads it.
        out: the output's positions.
        at: flat positions in `out` of each of the first samples; n is their number together.
    """
    channels, spatial = value.shape[1], value.shape[2:]
    index, real = _read(window, spatial, out, np.concatenate(at))
    n, taps = real.shape
    x = np.empty((channels, n, taps), value.dtype)
    first = 0
    for sample, mine in zip(value, at, strict=False):
        rows = slice(first, first := first + len(mine))
        if len(mine):
            flat = sample.reshape(channels, -1)
            x[:, rows] = flat[:, index[rows].reshape(-1)].reshape(channels, -1, taps)
    if not real.all():
        x *= real.astype(value.dtype)
    g = window.groups
    # (C, n, taps) to (G, n, C/G·taps)
    x = x.reshape(g, channels // g, n, taps).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(x).reshape(g, n, -1)


def _read(
    window: Window, spatial: tuple[int, ...], out: tuple[int, ...], at: Indices
) -> tuple[Indices, npt.NDArray[np.bool_]]:
    """Flat position (n, taps) in the input that each tap reads, and whether it is inside."""
    where = np.stack(np.unravel_index(at, out), axis=1)  # (n, axes)
    grids = np.meshgrid(*(np.arange(k) for k in window.kernel), indexing="ij")
    taps = np.stack([g.reshape(-1) for g in grids], axis=1)  # (taps, axes)
    stride, dilation, pad = (np.asarray(x) for x in (window.strides, window.dilations, window.pads))
    if window.transposed:
        scaled = where[:, None] + pad - taps * dilation
        index, rest = np.divmod(scaled, stride)
        inside = rest == 0
    else:
        index = where[:, None] * stride - pad + taps * dilation
        inside = np.ones(index.shape, np.bool_)
    inside &= (index >= 0) & (index < np.asarray(spatial))
    real = inside.all(axis=2)
    flat = np.zeros(real.shape, np.int64)
    for k, size in enumerate(spatial):
        flat = flat * size + np.where(real, index[..., k], 0)
    return flat, real
