"""The quantizers there are, by name: mid-rise, the ESN paper's own, and mid-tread beside it.

Both give each filter a step Δ and codes W_int with Ŵ = Δ·W_int, and both count code widths alike
(`esn.bits`). They differ in their codes: half-integers without a zero (mid-rise), or integers
(mid-tread).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from onnx_esn.numerics import midrise, midtread, step_size
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.step_size import Levels


@dataclass(frozen=True)
class Quantizer:
    """One way to put filters on a grid: functions, all without state.

    Attributes:
        name: its name in options and plans.
        least_bits: the fewest bits above 0 that it has codes for.
        top_code: (bits) → the largest code of b = 0 … 8 bits, in the shape of `bits`.
        round_codes: (x, top) → the nearest codes, clipped to ±top, of values x in units of Δ;
            elementwise, x and top of any shapes that broadcast, nothing checked; in float32 where
            both are.
        encode: (W (M, K), step (M,), bits (M,) or a scalar) → codes W_int (M, K).
        levels: what the search for its steps has to know.
    """

    name: str
    least_bits: int
    top_code: Callable[[npt.ArrayLike], Floats]
    round_codes: Callable[[npt.ArrayLike, npt.ArrayLike], npt.NDArray[Any]]
    encode: Callable[[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike], Floats]
    levels: Levels

    def optimal_step(self, W: npt.ArrayLike, bits: npt.ArrayLike) -> Floats:
        """Return the Δ (M,) of least squared error of W (M, K) at bits (M,) or a scalar.

        It is 0 below `least_bits` and for filters of zeros. Raises `VerificationError` where a
        weight is not finite.
        """
        return step_size.optimal_step(W, bits, self.levels)

    def step_for_all_bits(self, W: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return steps and squared errors (M, 9) of W (M, K) at 0 … 8 bits."""
        return step_size.step_for_all_bits(W, self.levels)

    def further_bits(
        self, W: npt.ArrayLike, steps: Floats, errors: Floats, most: int
    ) -> tuple[Floats, Floats]:
        """Return the same (M, most + 1) from what is known of 0 … b bits (M, b + 1) on."""
        return step_size.further_bits(W, steps, errors, most, self.levels)


MID_RISE = Quantizer(
    "mid-rise", 1, midrise.top_code, midrise.round_codes, midrise.encode, step_size.MID_RISE
)
MID_TREAD = Quantizer(
    "mid-tread", 2, midtread.top_code, midtread.round_codes, midtread.encode, step_size.MID_TREAD
)
QUANTIZERS: dict[str, Quantizer] = {q.name: q for q in (MID_RISE, MID_TREAD)}
