"""What the methods of a sweep cost at the same quality, against plain rounding or ACIQ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnx_esn.numerics.pareto import SAME_COST, cost_at

from .methods import BASELINE, PUBLISHED
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
        best: the cheapest method other than the baseline, or None where none is as good. One whose
            cheapest point is better than the level counts with that point's cost.
        factor: its cost over that of the baseline, or None where the latter is not known.
        at_most: whether the cheapest point of the best is better than the level, so that it would
            cost less still.
        baseline: what the others are held against: `PUBLISHED` if it was swept, else `BASELINE`.
    """

    level: float
    costs: dict[str, float | None]
    best: str | None
    factor: float | None
    at_most: bool = False
    baseline: str = BASELINE

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
    """Compare the methods at each level; nothing where no baseline is among them."""
    methods = list(dict.fromkeys(p.method for p in points if p.method is not None))
    baseline = next((name for name in (PUBLISHED, BASELINE) if name in methods), None)
    if baseline is None or len(methods) < 2:
        return []
    return [_at(points, quality, methods, level, baseline) for level in levels]


def _at(
    points: Sequence[Point],
    quality: Sequence[float],
    methods: Sequence[str],
    level: float,
    baseline: str,
) -> EqualQuality:
    costs: dict[str, float | None] = {}
    reached: dict[str, tuple[float, float]] = {}  # what is paid, and the quality had for it
    for method in methods:
        mine = sorted(
            (point.figures.esn_prime, value)
            for point, value in zip(points, quality, strict=True)
            if point.method == method and point.figures is not None
        )
        found = cost_at([c for c, _ in mine], [v for _, v in mine], level)
        costs[method] = found
        if found is not None:
            reached[method] = found, level
        elif mine and mine[0][1] > level:
            reached[method] = mine[0]
    others = [name for name in reached if name != baseline]
    cheapest = min((reached[name][0] for name in others), default=0.0)
    close = [name for name in others if reached[name][0] <= cheapest * (1 + SAME_COST)]
    best = max(close, key=lambda name: (reached[name][1], -reached[name][0]), default=None)
    plain = costs[baseline]
    factor = None if best is None or not plain else reached[best][0] / plain
    return EqualQuality(
        level, costs, best, factor, best is not None and costs[best] is None, baseline
    )
