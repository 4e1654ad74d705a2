"""Which share of a sliding window's positions meets real input rather than padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.layers import Layer

Floats = NDArray[np.float64]


def tap_coverage(attrs: Mapping[str, Any], layer: Layer, source: Shape, out: Shape) -> Floats:
    """Per kernel tap, the share of output positions at which it meets a real input."""
    result: Floats = np.ones(())
    for k, kernel in enumerate(layer.kernel):
        i, o = source[2 + k], out[2 + k]
        stride = (attrs.get("strides") or [1] * len(layer.kernel))[k]
        dilation = (attrs.get("dilations") or [1] * len(layer.kernel))[k]
        taps = np.arange(kernel) * dilation
        span = (kernel - 1) * dilation + 1
        if layer.op == "Conv":
            before = pad_before(attrs, k, len(layer.kernel), (o - 1) * stride + span - i)
            at = np.arange(o)[:, None] * stride - before + taps
            share = ((at >= 0) & (at < i)).sum(axis=0) / o
        else:
            extra = (attrs.get("output_padding") or [0] * len(layer.kernel))[k]
            total = (i - 1) * stride + extra + span - o
            before = pad_before(attrs, k, len(layer.kernel), total, turned=True)
            at = np.arange(i)[:, None] * stride - before + taps
            share = ((at >= 0) & (at < o)).sum(axis=0) / o
        result = np.multiply.outer(result, share)
    return result


def padding_share(attrs: Mapping[str, Any], source: Shape, out: Shape) -> tuple[float, float]:
    """Mean, and mean square, over output positions, of the share of a pool's window that is real.

    For a pool that counts its padding.
    """
    first = second = 1.0
    kernel = attrs["kernel_shape"]
    for k, size in enumerate(kernel):
        i, o = source[2 + k], out[2 + k]
        stride = (attrs.get("strides") or [1] * len(kernel))[k]
        dilation = (attrs.get("dilations") or [1] * len(kernel))[k]
        span = (size - 1) * dilation + 1
        before = pad_before(attrs, k, len(kernel), (o - 1) * stride + span - i)
        at = np.arange(o)[:, None] * stride - before + np.arange(size) * dilation
        share = ((at >= 0) & (at < i)).mean(axis=1)
        first, second = first * float(share.mean()), second * float((share**2).mean())
    return first, second


def pad_before(
    attrs: Mapping[str, Any], k: int, rank: int, total: int, turned: bool = False
) -> int:
    """Padding before axis `k`; `total` is what auto_pad or an output shape asks for."""
    mode = attrs.get("auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER") or (turned and attrs.get("output_shape")):
        total = max(0, total)
        return total // 2 if mode == b"SAME_UPPER" else total - total // 2
    if mode == b"VALID":
        return 0
    pads = attrs.get("pads")
    return int(pads[k]) if pads else 0
