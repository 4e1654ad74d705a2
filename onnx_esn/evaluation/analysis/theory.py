"""What both leave of weights with a known density, in closed form."""

from __future__ import annotations

import functools

from onnx_esn.numerics.pruning_or_quantizing.distributions import (
    Distribution,
    Gaussian,
    StudentT,
)
from onnx_esn.numerics.pruning_or_quantizing.theory import pruning_snr, quantization_snr

# What the weights of a network may be likened to.
DENSITIES: tuple[Distribution, ...] = (Gaussian(), StudentT(8), StudentT(4), StudentT(3))


@functools.cache
def theory() -> tuple[tuple[Distribution, tuple[tuple[int, float, float], ...]], ...]:
    """(density, (bits, SNR quantized, SNR pruned)) of each of `DENSITIES`."""
    return tuple(
        (x, tuple((b, quantization_snr(x, b), pruning_snr(x, b)) for b in range(8, 1, -1)))
        for x in DENSITIES
    )
