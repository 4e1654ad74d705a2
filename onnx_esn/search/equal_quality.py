"""What the methods of a sweep cost at the same quality, against plain rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnx_esn.numerics.pareto import cost_at

from .methods import BASELINE
from .point import Point

# How far below the input model the levels lie, or (SNR in dB) where.
_BELOW = (0.01, 0.02, 0.05)
_DECIBELS = (20.0, 15.0, 10.0)


@dataclass(frozen=True)
class EqualQuality:
    """Costs at one level of quality.

    Attributes:
        level: of the sweep's metric.
        costs: ESN'_d of each method, between its points; None where its points do not enclose the
            level.
        best: the cheapest method other than `BASELINE`, or None where there is none.
        factor: its cost over that of `BASELINE`, or None where one of the two is not known.
    """

    level: float
    costs: dict[str, float | None]
    best: str | None
    factor: float | None

    def to_document(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def levels_of(metric: str, reference: float | None) -> tuple[float, ...]:
    """Three levels of a metric, the best first; `reference` is the input model's."""
    if metric == "snr_db":
        return _DECIBELS
    return () if reference is None else tuple(reference - below for below in _BELOW)


def equal_quality(
    points: Sequence[Point], quality: Sequence[float], levels: Sequence[float]
) -> list[EqualQuality]:
    """Compare the methods at each level; nothing where `BASELINE` is not among them."""
    methods = list(dict.fromkeys(p.method for p in points if p.method is not None))
    if BASELINE not in methods or len(methods) < 2:
        return []
    return [_at(points, quality, methods, level) for level in levels]


def _at(
    points: Sequence[Point], quality: Sequence[float], methods: Sequence[str], level: float
) -> EqualQuality:
    costs: dict[str, float | None] = {}
    for method in methods:
        mine = [
            (point.figures.esn_prime, value)
            for point, value in zip(points, quality, strict=True)
            if point.method == method and point.figures is not None
        ]
        costs[method] = cost_at([c for c, _ in mine], [v for _, v in mine], level)
    known = {name: cost for name, cost in costs.items() if cost is not None and name != BASELINE}
    best = min(known, key=known.__getitem__) if known else None
    plain = costs[BASELINE]
    factor = known[best] / plain if best is not None and plain else None
    return EqualQuality(level, costs, best, factor)
