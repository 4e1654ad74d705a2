"""Scales and ticks of the charts; places are percentages, so that text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """From numbers to percentages of an axis.

    Attributes:
        low: the number at 0 %.
        high: the number at 100 %, above `low`.
        logarithmic: whether equal ratios are equal distances; both ends are above 0 then.
    """

    low: float
    high: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Percentage of the axis, from its low end, within 0 … 100."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        share = (self._scaled(max(value, self.low)) - low) / (high - low)
        return round(100 * min(share, 1.0), 2)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers on the axis, at most as many, or the few there are of a decade."""
        if not self.logarithmic:
            return _even_ticks(self.low, self.high, most)
        for steps in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            found = _decade_ticks(self.low, self.high, steps)
            if len(found) <= most:
                return found
        return found[:: math.ceil(len(found) / most)]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value


def log_axis(values: Sequence[float], margin: float = 0.06, narrowest: float = 1.5) -> Axis:
    """An axis around numbers above 0, ``margin`` of it free on both sides."""
    low, high = min(values), max(values)
    if high / low < narrowest:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(narrowest), middle * math.sqrt(narrowest)
    factor = (high / low) ** margin
    return Axis(low / factor, high * factor, logarithmic=True)


def _even_ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    scale = 10 ** math.floor(math.log10(rough))
    step = next(s * scale for s in _STEPS if s * scale >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _decade_ticks(low: float, high: float, steps: Sequence[int]) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    found = [s * 10.0**d for d in decades for s in steps]
    return [v for v in found if low <= v <= high]
