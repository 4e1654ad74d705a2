"""Weights on a grid as integers and a scale, so that scale · integer gives them to the last bit.

A mid-rise weight Δ·(k + ½) is the odd integer 2k + 1 times Δ/2, a mid-tread weight Δ·k the integer
k times Δ. The product is rounded once, by whoever computes it; so the scale must be one whose
rounded products are the very weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from onnx_esn.formats.containers import Integers
from onnx_esn.graph.number_formats import EPSILON, round_to
from onnx_esn.graph.weights import StoredWeight
from onnx_esn.numerics.quantizers import MID_RISE

Floats = npt.NDArray[np.float64]

_BYTE = 127
# Neighbours of the best scale that are tried.
_NEIGHBOURS = (0, 1, -1, 2, -2, 3, -3, 4, -4)
# The smallest number of each type above 0: nothing is closer together.
_SMALLEST: dict[int, float] = {
    TensorProto.FLOAT: 2.0**-149,
    TensorProto.DOUBLE: 2.0**-1074,
    TensorProto.FLOAT16: 2.0**-24,
    TensorProto.BFLOAT16: 2.0**-133,
}
# What the weights may be off, in units in the last place, where no scale gives them exactly.
MOST_ULPS = 1.0


@dataclass(frozen=True)
class IntegerWeight:
    """A weight as integers: W = round(scale · n).

    Attributes:
        n: integers (M, K); odd in a mid-rise filter, all 0 in a filter of 0 bits.
        scale: numbers of the weight's own type (M,); 0 for a filter of 0 bits.
        half: whether the grid is mid-rise, so that n = 2·k + 1 with k in one bit less.
        inexact: number of filters that no scale gives exactly …
        ulps: … and how far they are off at most, in units in the last place.
    """

    n: Integers
    scale: Floats
    half: bool
    inexact: int = 0
    ulps: float = 0.0


def as_integers(weight: StoredWeight) -> IntegerWeight:
    """Return the integers behind a weight that lies on a grid (its `step` is not None).

    Where the canonical step is no number of the weight's type, a fraction of it may be: the codes
    ±1.5, ±4.5 at step 3Δ are also ±0.5·3, ±1.5·3. Fractions that need no wider codes are tried.
    """
    assert weight.step is not None
    assert weight.halves is not None
    half = weight.quantizer == MID_RISE.name
    per_step = 2 if half else 1
    # No filter may take more than the widest one has.
    widest = int(weight.filter_bits.max(initial=0))
    top = (1 << widest) - 1 if half else (1 << max(widest - 1, 0)) - 1
    M, K = weight.shape
    off = np.zeros(M)
    n: Integers = np.empty((M, K), np.int8 if top <= _BYTE else np.int16)
    scale = round_to(weight.step / per_step, weight.type)
    for rows, W, codes in weight.blocks():
        assert codes is not None
        part = np.rint(codes * per_step)
        off[rows] = _off(part, scale[rows], W, weight.type)
        for row in np.flatnonzero(off[rows] > 0):
            refined = _refined(part[row], W[row : row + 1], weight.type, top, per_step)
            part[row], scale[rows.start + row], off[rows.start + row] = refined
        n[rows] = part
    scale[~n.any(axis=1)] = 0.0
    if n.size and max(-int(n.min()), int(n.max())) <= _BYTE:
        n = n.astype(np.int8)
    return IntegerWeight(n, scale, half, int((off > 0).sum()), float(off.max(initial=0.0)))


def shifted_integers(weight: StoredWeight) -> IntegerWeight:
    """Return the integers n = 2·W_int and scales of a weight on a grid with offsets.

    W = round(scale · (n + 2·offset)): the offsets are those of `StoredWeight.shifted`.
    """
    assert weight.shifted is not None
    step, codes, offset = weight.shifted
    n: Integers = np.rint(2.0 * codes).astype(np.int16)
    off = np.zeros(step.shape)
    for block in weight.blocks():
        rows = block.rows
        multiples = codes[rows] + offset[rows, None]
        off[rows] = _off(multiples, step[rows], block.W, weight.type)
    ulps = float(off.max(initial=0.0))
    return IntegerWeight(n, step / 2.0, True, int((off > 0).sum()), ulps)


def _refined(
    n: Floats, W: Floats, data_type: int, top: int, spacing: int
) -> tuple[Floats, float, float]:
    """Integers, scale and error in ulps of one filter W (1, K): exact where anything near is."""
    peak = np.abs(n).max()
    best = (n, float(round_to(np.abs(W).max() / peak, data_type)), np.inf)
    for factor in range(1, int(top // peak) + 1, spacing):
        many = n * factor
        least_squares = float((W[0] * many).sum() / (many * many).sum())
        near = round_to(np.array([least_squares]), data_type)
        ulp = float(_unit(near, data_type)[0])
        for steps in _NEIGHBOURS:
            scale = round_to(near + steps * ulp, data_type)
            off = float(_off(many[None], scale, W, data_type)[0])
            if off < best[2]:
                best = (many, float(scale[0]), off)
            if off == 0:
                return best
    return best


def _off(n: Floats, scale: Floats, W: Floats, data_type: int) -> Floats:
    difference = np.abs(round_to(scale[:, None] * n, data_type) - W)
    return np.asarray((difference / _unit(W, data_type)).max(axis=1, initial=0.0))


def _unit(x: Floats, data_type: int) -> Floats:
    """Distance to the next number of the type."""
    _, exponent = np.frexp(np.abs(x))
    unit = np.ldexp(EPSILON[data_type], exponent - 1)
    return np.asarray(np.maximum(unit, _SMALLEST[data_type]))
