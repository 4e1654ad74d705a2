"""Effective signal norm: what the codes of a layer cost, in squared amplitude or in bits.

    ESN_a  = Σ c·W_int²          (analogue)
    ESN_d  = Σ c·bits(W_int)     (digital, per weight)
    ESN'_d = Σ_filters MACs(filter)·bits(max|W_int| of the filter)

c = 1 counts memory, c = MACs per weight counts computation.

The code width is bits(x) = 1 + ceil(log2(|x| + 0.5)), bits(0) = 0: ±0.5 is a sign and so costs one
bit. With b bits the largest code has width b, on the mid-rise and on the mid-tread grid alike. The
paper's formula, ceil(log2|x| + 1), agrees on mid-rise codes from ±1.5 on but gives 0 to ±0.5,
against its own figures ("mostly 1 bit", 0 bits meaning pruned); it stays available as
`bits_literal`.

Source: "Prune or quantize? Strategy for Pareto-optimally low-cost and accurate CNN", eqs. (3), (6);
c enters linearly, as in the paper's figures.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.midrise import Floats

Integers = npt.NDArray[np.int64]
Width = Callable[[npt.ArrayLike], Integers]


def bits(x: npt.ArrayLike) -> Integers:
    """Return the code width 1 + ceil(log2(|x| + 0.5)) of each code x, 0 where x is 0.

    Exact: the logarithm is read off the exponent of the float.
    """
    magnitude = np.abs(np.asarray(x, dtype=np.float64))
    return np.where(magnitude > 0, np.maximum(1 + _ceil_log2(magnitude + 0.5), 1), 0)


def bits_literal(x: npt.ArrayLike) -> Integers:
    """Return the paper's literal ceil(log2|x| + 1) of each code x, 0 where that is negative."""
    magnitude = np.abs(np.asarray(x, dtype=np.float64))
    return np.where(magnitude > 0, np.maximum(1 + _ceil_log2(magnitude), 0), 0)


def filter_bits(W_int: npt.ArrayLike, width: Width = bits) -> Integers:
    """Return the bits (M,) of each filter of the codes W_int (M, K), by its largest |code|."""
    return width(np.abs(np.asarray(W_int, dtype=np.float64)).max(axis=1, initial=0.0))


def esn_a(W_int: npt.ArrayLike, c: npt.ArrayLike = 1.0) -> float:
    """Return Σ c·W_int² of the codes W_int (M, K); the cost c is a scalar or (M,)."""
    codes = np.asarray(W_int, dtype=np.float64)
    return _weighted_sum(np.einsum("mk,mk->m", codes, codes), c)


def esn_d(W_int: npt.ArrayLike, c: npt.ArrayLike = 1.0, width: Width = bits) -> float:
    """Return Σ c·bits(W_int) in bits of the codes W_int (M, K); c is a scalar or (M,)."""
    return _weighted_sum(width(W_int).sum(axis=1), c)


def esn_prime(macs_per_filter: npt.ArrayLike, bits_per_filter: npt.ArrayLike) -> float:
    """Return ESN'_d = Σ MACs·bits over filters, in MAC·bit; both arguments are (M,)."""
    return _weighted_sum(np.asarray(bits_per_filter), macs_per_filter)


def _weighted_sum(per_filter: npt.NDArray[np.float64] | Integers, c: npt.ArrayLike) -> float:
    cost = np.asarray(c, dtype=np.float64)
    if cost.ndim and cost.shape != per_filter.shape:
        raise ValueError(f"costs of shape {cost.shape} for {per_filter.shape[0]} filters")
    return float((per_filter * cost).sum())


def _ceil_log2(x: Floats) -> Integers:
    """Return ceil(log2 x) for x > 0: with x = m·2^e, ½ ≤ m < 1, that is e, or e − 1 if m = ½."""
    m, e = np.frexp(x)
    return np.asarray(e - (m == 0.5), dtype=np.int64)
