"""Multiply-accumulates by counting them one at a time, positions in the padding included.

Nothing here knows a formula for an output size: a window is moved along each axis until it no
longer fits, and every product that a direct implementation would form is counted as it is formed.
"""

from __future__ import annotations

import itertools


def conv(size, channels, filters, kernel, *, stride, dilation, pads, groups):
    """MACs of a convolution over one sample; pads is (begin, end) per axis."""
    starts = [
        window_starts(n + begin + end, k, s, d)
        for n, (begin, end), k, s, d in zip(size, pads, kernel, stride, dilation, strict=True)
    ]
    count = 0
    for _m in range(filters):
        for _position in itertools.product(*starts):
            for _c in range(channels // groups):
                for _offset in itertools.product(*map(range, kernel)):
                    count += 1
    return count


def window_starts(length, kernel, stride, dilation):
    starts, at = [], 0
    while at + (kernel - 1) * dilation < length:
        starts.append(at)
        at += stride
    return starts


def conv_transpose(size, channels, filters, kernel, groups):
    """MACs of a transposed convolution that scatters each input value times the kernel.

    What falls on positions that padding crops away again is counted, like the products with
    padding of a convolution; output_padding adds positions that nothing is scattered to.
    """
    count = 0
    for c in range(channels):
        for _position in itertools.product(*map(range, size)):
            for m in range(filters):
                if c // (channels // groups) == m // (filters // groups):
                    for _offset in itertools.product(*map(range, kernel)):
                        count += 1
    return count


def matmul(left, right):
    """MACs of a matrix product with broadcast leading axes, from the shapes of its operands."""
    lead = broadcast(left[:-2], right[:-2])
    count = 0
    for _batch in itertools.product(*map(range, lead)):
        for _row in range(left[-2]):
            for _column in range(right[-1]):
                for _k in range(left[-1]):
                    count += 1
    return count


def broadcast(a, b):
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b)
    return tuple(max(x, y) for x, y in zip(a, b, strict=True))
