"""Which QONNX quantizer has exactly the levels of a layer's grid.

A Quant of b bits makes (u − z)·s of integers u: 0 … 2^b − 1 where it is unsigned, ±(2^(b-1) − 1)
where it is signed and narrow. It has one bit width for the whole tensor, while scales and zero
points may differ from filter to filter; the widest filter of a layer decides, and the codes of the
others are among its levels at their own scale.

| grid | form | signed | z | s | bits |
|---|---|---|---|---|---|
| mid-tread | | 1 | 0 | Δ | b |
| mid-rise, all filters of 1 bit | bipolar | 1 | 0 | Δ/2 | 1 |
| mid-rise | zero point (2^b − 1)/2 | 0 | (2^b − 1)/2 | Δ | b |
| mid-rise, zero points not wanted | odd integers | 1 | 0 | Δ/2 | b + 1 |

A mid-rise grid has no zero, and so neither has its zero point form: a filter of zeros gets a zero
point of 0 there, and is the level u = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_esn.numerics.esn import filter_bits
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.quantizers import MID_RISE


@dataclass(frozen=True)
class QuantForm:
    """The operands of a Quant for the filters of a layer.

    Attributes:
        bits: bit width of the tensor.
        signed: whether its integers are signed; the range is narrow then, and full otherwise.
        scale: s (M,) by filter, above 0.
        zero_point: z (M,) by filter.
    """

    bits: int
    signed: bool
    scale: Floats
    zero_point: Floats


def shifted_form(codes: Floats, step: Floats, offset: Floats) -> QuantForm:
    """Return the form of codes W_int (M, K) at steps Δ and offsets (M,): Ŵ = Δ·(W_int + offset).

    It always has zero points, (2^b − 1)/2 − offset.
    """
    bits = int(filter_bits(codes).max())
    zeros = ~codes.any(axis=1)
    scale = np.where(zeros, 1.0, step)
    return QuantForm(bits, False, scale, np.where(zeros, 0.0, (2.0**bits - 1) / 2 - offset))


def quant_form(
    codes: Floats, step: Floats, quantizer: str, *, zero_points: bool = True
) -> QuantForm:
    """Return the form that holds codes W_int (M, K) at steps Δ (M,), not all of them 0.

    Args:
        codes: on the grid of the quantizer.
        step: 0 for filters of zeros.
        quantizer: a name in `QUANTIZERS`.
        zero_points: whether a mid-rise grid may have zero points other than 0.
    """
    bits = int(filter_bits(codes).max())
    zeros = ~codes.any(axis=1)
    scale = np.where(zeros, 1.0, step)
    none = np.zeros_like(scale)
    if quantizer != MID_RISE.name:
        return QuantForm(bits, True, scale, none)
    halves = np.where(zeros, 1.0, step / 2)
    if bits == 1 and not zeros.any():
        return QuantForm(1, True, halves, none)
    if not zero_points:
        return QuantForm(bits + 1, True, halves, none)
    return QuantForm(bits, False, scale, np.where(zeros, 0.0, (2.0**bits - 1) / 2))
