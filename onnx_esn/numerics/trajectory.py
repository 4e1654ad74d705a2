"""The effective signal norm of training: how far weights move in an epoch, against their size.

    S = Σ_i ‖W_i‖²,    N = Σ_i ‖W_i − W_0‖²,    ESN_a ≈ n/12 · S/N        (eqs. 4 and 5)

over the iterations i of an epoch that began with W_0, for the n weights of a layer; layers add up.
A step Δ leaves a rounding noise of Δ²/12 a weight, so that Σ W_int² = ‖W‖²/Δ² = n·‖W‖²/(12·noise):
training that wanders by N is worth the codes of a quantizer that errs by N.

That holds while the noise is that of a fine step. On coarse grids the codes are counted and the
estimate are two numbers: on Gaussian weights more is counted than estimated, 2 % at Δ = σ/2, 8 % at
Δ = σ and 38 % at 2σ (3, 2 and 1 bits, about).

Source: "Prune or quantize? Strategy for Pareto-optimally low-cost and accurate CNN", section 2 and
appendix B; the sum over filters of filter-wise steps is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.esn import esn_a
from onnx_esn.numerics.midrise import MAX_BITS, Floats, decode
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.numerics.row_blocks import row_blocks

# ESN_a a weight of the best step at about 2.5 bits, Δ = 0.77·σ; below, eq. (4) is off.
LEAST_TRUSTED = 1.7
_AT_ONCE = 1 << 20  # weights turned into float64 at a time


@dataclass
class EpochSums:
    """S and N of one layer, as samples of its weights come in.

    Attributes:
        weights: n, how many it has.
        signal: S.
        noise: N.
        samples: how many there were.
    """

    weights: int
    signal: float = 0.0
    noise: float = 0.0
    samples: int = 0

    def add(self, W: npt.ArrayLike, start: npt.ArrayLike) -> None:
        """Add the weights of one iteration; `start` are those that the epoch began with."""
        now, before = np.asarray(W).reshape(-1), np.asarray(start).reshape(-1)
        for first in range(0, now.size, _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            x = now[part].astype(np.float64)
            self.signal += float(np.vdot(x, x))
            x -= before[part]
            self.noise += float(np.vdot(x, x))
        self.samples += 1

    @property
    def esn_a(self) -> float | None:
        """n/12 · S/N; None where nothing moved."""
        return estimated_esn(self.weights, self.signal, self.noise)


def estimated_esn(weights: int, signal: float, noise: float) -> float | None:
    """Return eq. (4) for one layer, n/12 · S/N; None without noise."""
    return weights / 12.0 * signal / noise if noise > 0 else None


@dataclass(frozen=True)
class QuantizedEsn:
    """ESN_a of a quantized layer.

    Attributes:
        counted: Σ W_int² of its codes.
        estimated: eq. (4) of the noise it has, filter by filter; None without noise.
    """

    counted: float
    estimated: float | None


def quantized_esn(W: npt.ArrayLike, bits: int, quantizer: Quantizer = MID_RISE) -> QuantizedEsn:
    """Quantize filters (M, K) at the step of least squared error, and return what they are worth.

    Filters without noise (zeros, or on the grid already) are left out of the estimate.
    """
    W = np.asarray(W)
    counted, parts = 0.0, [np.zeros(0)]
    for rows in row_blocks(*W.shape):
        x = W[rows].astype(np.float64)
        step = quantizer.optimal_step(x, bits)
        codes = quantizer.encode(x, step, bits)
        counted += esn_a(codes)
        signal = (x**2).sum(axis=1)
        noise: Floats = ((x - decode(codes, step)) ** 2).sum(axis=1)
        live = noise > 0
        parts.append(W.shape[1] / 12.0 * signal[live] / noise[live])
    estimated = np.concatenate(parts)
    return QuantizedEsn(counted, float(estimated.sum()) if estimated.size else None)


def bits_for(
    W: npt.ArrayLike, target: float, quantizer: Quantizer = MID_RISE
) -> tuple[int, QuantizedEsn]:
    """Return the bits at which filters (M, K) have the ESN_a nearest to a target, by ratio.

    Of equally near ones the fewest; a target beyond those of the fewest and the most bits gets
    these.
    """
    options = {b: quantized_esn(W, b, quantizer) for b in range(quantizer.least_bits, MAX_BITS + 1)}

    def away(bits: int) -> float:
        counted = options[bits].counted
        return abs(np.log(counted / target)) if counted > 0 else np.inf

    best = min(options, key=lambda b: (away(b), b))
    return best, options[best]
