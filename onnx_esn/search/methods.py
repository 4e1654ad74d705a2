"""The ways to meet a budget that a sweep puts side by side, as options of `compress`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_esn.errors import OptionError

from .point import Point

WIDEST = 8  # bits; what pruning alone leaves every filter with
TARGETS = (4.0, 3.0, 2.0, 1.0)
RATIOS = (0.0, 0.25, 0.5, 0.75)
BITS = (2, 3, 4, 5, 6, 8)
BASELINE = "nearest"
PUBLISHED = "aciq"  # the baseline of the ESN paper; what the others are held against where swept

Options = dict[str, Any]


def _nearest(target: float, macs: int, effort: str) -> Options:
    return {"method": "nearest", "target_cost": target * macs}


def _aciq(target: float, macs: int, effort: str) -> Options:
    return {"method": "aciq", "target_cost": target * macs}


def _quantize_only(target: float, macs: int, effort: str) -> Options:
    return {"target_cost": target * macs, "channels": False, "effort": effort}


def _prune_only(target: float, macs: int, effort: str) -> Options:
    if target >= WIDEST:
        return {"bits": WIDEST}
    return {"bits": WIDEST, "target_cost": target * macs, "effort": effort}


def _prune_then_quantize(target: float, macs: int, effort: str) -> Options:
    if target >= WIDEST:
        return _quantize_only(target, macs, effort)
    return {
        "target_macs": math.sqrt(target / WIDEST) * macs,
        "criterion": "reconstruction",
        "target_cost": target * macs,
        "effort": effort,
    }


def _joint(target: float, macs: int, effort: str) -> Options:
    return {"target_cost": target * macs, "effort": effort}


# From a target in mean bits per MAC of the input model, that model's MACs, and an effort.
METHODS: Mapping[str, Callable[[float, int, str], Options]] = {
    BASELINE: _nearest,
    "quantize-only": _quantize_only,
    "prune-only": _prune_only,
    "prune-then-quantize": _prune_then_quantize,
    "joint": _joint,
    PUBLISHED: _aciq,
}
DEFAULT = tuple(name for name in METHODS if name != PUBLISHED)
# What a method decides itself.
DECIDED: tuple[str, ...] = ("bits", "channels", "criterion", "effort", "method", "ratio")
DECIDED += ("target_cost", "target_macs")


@dataclass(frozen=True)
class Job:
    """A point to compute.

    Attributes:
        point: without figures.
        options: for `compress`.
    """

    point: Point
    options: Options


def method_jobs(
    methods: Sequence[str], targets: Sequence[float], macs: int, effort: str
) -> list[Job]:
    """Every method at every target, the largest target first; each once."""
    return [
        Job(Point(method=name, target=target), METHODS[name](target, macs, effort))
        for name in dict.fromkeys(methods)
        for target in sorted({float(target) for target in targets}, reverse=True)
    ]


def check_methods(
    methods: Sequence[str], targets: Sequence[float], options: Mapping[str, Any]
) -> None:
    """Refuse what cannot be swept.

    Raises:
        OptionError: there is no method or target, one is impossible, or an option is a method's
            own.
    """
    if not methods or not targets:
        raise OptionError("a sweep needs at least one method and one target")
    for name in methods:
        if name not in METHODS:
            raise OptionError(f"method {name!r} is not known; there are: {', '.join(METHODS)}")
    for target in targets:
        if not (math.isfinite(target) and target > 0):
            raise OptionError(f"target {target:g} must be above 0: mean bits per MAC, such as 2.5")
    own = sorted(set(DECIDED) & set(options))
    if own:
        raise OptionError(f"the methods of a sweep decide {', '.join(own)} themselves")


def grid_jobs(ratios: Sequence[float], bits: Sequence[int]) -> list[Job]:
    """Every ratio with every bit width, each once, ratios first.

    Raises:
        OptionError: an empty or impossible grid.
    """
    if not ratios or not bits:
        raise OptionError("a sweep needs at least one ratio and one bit width")
    for ratio in ratios:
        if not 0 <= ratio < 1:
            raise OptionError(f"ratio {ratio} is not a share of filters to remove: 0 <= ratio < 1")
    for width in bits:
        if width != int(width) or not 1 <= width <= WIDEST:
            raise OptionError(f"bits {width} must be a whole number from 1 to {WIDEST}")
    return [
        Job(Point(ratio=ratio, bits=width), {"ratio": ratio or None, "bits": width})
        for ratio in sorted({float(ratio) for ratio in ratios})
        for width in sorted({int(width) for width in bits})
    ]
