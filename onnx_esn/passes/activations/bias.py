"""The bias of a layer with integer weights: 32-bit multiples of input scale · weight scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnx_esn.passes.activations.weights import IntegerLayer

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Half of the 32 bits are for the bias, the other half for the sum of products.
_LIMIT = 2.0**30
# A filter of zeros has any scale: one that gives its bias this many steps.
_FINE = 2.0**24
# Two products of 8-bit activations and such codes fit 16 bits, where CPUs without VNNI add them.
_SAFE = 63
_TINY = float(np.finfo(np.float32).tiny)


def with_bias(layer: IntegerLayer, input_scale: float) -> tuple[IntegerLayer, Integers | None]:
    """The layer with the scales that its bias asks for, and the bias (M,); None without one.

    Small integers are multiplied, and their scale divided, by a power of two: the weights are the
    same, the bias is rounded to a smaller step. A filter so small that its bias does not fit gets a
    larger scale, and the nearest codes of its kind (all 0 where that is nearer than ±1); that
    changes less than K·2⁻²² of the bias, K the weights of a filter: up to K = 16,000 less than the
    step of an 8-bit output that has to hold the bias.
    """
    scale = layer.scale
    if layer.bias is None:
        scale = np.where(scale > 0, scale, scale.max(initial=0.0) or 1.0)
        return replace(layer, scale=scale), None
    codes, bias = layer.codes().copy(), np.abs(layer.bias)
    least = bias / (input_scale * _LIMIT)
    peak = np.maximum(codes.max(axis=1, initial=0), -codes.min(axis=1, initial=0))
    times = np.exp2(np.floor(np.log2(_SAFE / np.clip(peak, 1, _SAFE))))
    finer = (scale / times >= np.maximum(least, _TINY)) & (peak > 0)
    codes[finer] *= times[finer, None].astype(codes.dtype)
    scale = np.where(finer, scale / times, scale)
    empty = peak == 0
    fine = np.maximum(_upward(bias / (input_scale * _FINE)), _TINY)
    scale = np.where(empty, np.where(bias > 0, fine, 1.0), scale)
    short = (scale < least) & ~empty
    wide = np.where(short, _upward(least), scale)
    codes[short] = _nearest(codes[short] * (scale / wide)[short, None], layer.odd)
    result = replace(layer, scale=wide, codes=lambda: codes, rounded=layer.rounded | short)
    return result, np.rint(layer.bias / (input_scale * wide)).astype(np.int64)


def _nearest(codes: Floats, odd: bool) -> Floats:
    """The nearest integers to codes (M, K); odd ones where all codes have to be."""
    if not odd:
        return np.rint(codes)
    dead = np.abs(codes).max(axis=1, keepdims=True, initial=0.0) < 0.5
    return np.where(dead, 0.0, 2.0 * np.floor(codes / 2.0) + 1.0)


def _upward(x: Floats) -> Floats:
    """The next larger numbers that float32 has."""
    return np.asarray(np.nextafter(x.astype(np.float32), np.float32(np.inf)), dtype=np.float64)
