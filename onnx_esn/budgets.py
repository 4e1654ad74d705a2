"""Targets as people write them: `25%` of what there is, or `1.2G` of it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from onnx_esn.errors import OptionError

_SUFFIX = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([kmgt%]?)", re.IGNORECASE)
_FORMS = "write a percentage of the input model's figure (25%) or a number (1.2G, 300M, 5k, 42000)"


@dataclass(frozen=True)
class Target:
    """A figure to stay below.

    Attributes:
        value: the absolute figure, or the fraction of the total (0 … 1) where `relative`.
        relative: whether it is a fraction.
    """

    value: float
    relative: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or self.value <= 0:
            raise OptionError(f"a target must be above 0, not {self.value:g}; {_FORMS}")
        if self.relative and self.value > 1:
            raise OptionError(f"a target of {100 * self.value:g}% is more than the whole; {_FORMS}")

    def resolve(self, total: float) -> float:
        """Return the absolute figure, given the total that a percentage refers to."""
        return self.value * total if self.relative else self.value

    def __str__(self) -> str:
        return f"{100 * self.value:.6g}%" if self.relative else f"{self.value:.6g}"


def parse_target(text: Target | str | float) -> Target:
    """Read a target: `25%`, `1.2G`, `300M`, `5k`, `1e9` or a number; suffixes are powers of 1000.

    Raises:
        OptionError: it is none of these, not above 0, not finite or above 100%.
    """
    if isinstance(text, Target):
        return text
    if isinstance(text, int | float) and not isinstance(text, bool):
        return Target(float(text))
    match = _NUMBER.fullmatch(str(text).strip())
    if match is None:
        raise OptionError(f"{text!r} is not a target; {_FORMS}")
    number, suffix = float(match[1]), match[2].lower()
    if suffix == "%":
        return Target(number / 100, relative=True)
    return Target(number * _SUFFIX[suffix])
