"""The three costs of a model side by side, and how many filters have how many bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.passes.layers.costs import InputShape

FLOAT = "float"
WIDTHS = (*(str(bits) for bits in range(9)), FLOAT)


@dataclass(frozen=True)
class EsnMetrics:
    """Costs of one sample's computation, over the layers whose MACs are known.

    Attributes:
        macs: multiply-accumulates.
        esn_a: Σ c·W_int², c = MACs per weight, over the quantized layers; None where there is none.
        esn_d: Σ c·bits(W_int) in MAC·bit; float weights cost the width they are stored in.
        esn_prime: ESN'_d in MAC·bit: every weight costs the bits of its filter's largest.
        bit_widths: number of filters by bits, ``"0"`` … ``"8"`` and ``"float"``: off any grid.
    """

    macs: int
    esn_a: float | None
    esn_d: float
    esn_prime: float
    bit_widths: Mapping[str, int]

    @property
    def filters(self) -> int:
        """Number of filters."""
        return sum(self.bit_widths.values())


def measure_esn(model: onnx.ModelProto, *, input_shape: InputShape | None = None) -> EsnMetrics:
    """Measure a model; raises what `inspect` raises."""
    inspection = inspect(model, input_shape=input_shape, groups=False)
    widths = dict.fromkeys(WIDTHS, 0)
    for layer in inspection.layers:
        for bits, filters in layer.bits.items():
            known = layer.quantized and str(bits) in widths
            widths[str(bits) if known else FLOAT] += filters
    totals = inspection.totals
    return EsnMetrics(totals.macs, totals.esn_a, totals.esn_d, totals.esn_prime, widths)
