"""The result of a sweep: data, JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from onnx_esn.graph.model_file import write_text
from onnx_esn.numerics.pareto import SAME_COST, pareto_front
from onnx_esn.passes.inspecting.esn_metrics import WIDTHS
from onnx_esn.passes.inspecting.result import json_ready

from .equal_quality import EqualQuality, equal_quality, levels_of
from .point import Baseline, Figures, Point

SCHEMA = "onnx-esn/sweep/2"


@dataclass(frozen=True)
class SweepResult:
    """All points of a sweep: method by method, or in the order of the grid.

    Attributes:
        name: of the input model.
        points: finished and failed ones.
        baseline: the input model's own figures; None if no point was finished.
        computed: points computed now; the others were taken from an earlier run.
    """

    name: str
    points: tuple[Point, ...]
    baseline: Baseline | None
    computed: int = 0

    @property
    def metric(self) -> str:
        """What counts as quality: ``accuracy`` if known, else ``top1``, else ``snr_db``."""
        known = [point.figures for point in self.points if point.figures is not None]
        for name in ("accuracy", "top1"):
            if known and all(getattr(figures, name) is not None for figures in known):
                return name
        return "snr_db"

    @property
    def front(self) -> tuple[bool, ...]:
        """For each point, whether no other costs less ESN'_d for the same or better quality.

        Costs that differ by 1 % count as the same where the quality differs.
        """
        cost = [np.nan if p.figures is None else p.figures.esn_prime for p in self.points]
        return tuple(bool(on) for on in pareto_front(cost, self._qualities, tolerance=SAME_COST))

    @property
    def equal_quality(self) -> tuple[EqualQuality, ...]:
        """What the methods cost at the same quality; nothing for a grid, or without `nearest`."""
        if self.baseline is None:
            return ()
        levels = levels_of(self.metric, getattr(self.baseline.figures, self.metric))
        return tuple(equal_quality(self.points, self._qualities, levels))

    @property
    def _qualities(self) -> list[float]:
        return [_quality(point.figures, self.metric) for point in self.points]

    def to_document(self) -> dict[str, Any]:
        """JSON-ready; the same sweep gives the same document, however often it was resumed."""
        base = self.baseline
        document = {
            "schema": SCHEMA,
            "model": self.name,
            "images": None if base is None else base.images,
            "samples": None if base is None else base.samples,
            "metric": self.metric,
            "input": None if base is None else asdict(base.figures),
            "points": [
                _point(point, on) for point, on in zip(self.points, self.front, strict=True)
            ],
            "equal_quality": [level.to_document() for level in self.equal_quality],
        }
        plain: dict[str, Any] = json_ready(document)
        return plain

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write ``sweep.json`` and ``sweep.csv``.

        Raises:
            OutputError: the folder cannot be written.
        """
        document = self.to_document()
        text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        return (
            write_text(text, folder / "sweep.json"),
            write_text(_csv(document["points"]), folder / "sweep.csv"),
        )


def _quality(figures: Figures | None, metric: str) -> float:
    if figures is None:
        return np.nan
    value = getattr(figures, metric)
    if value is None and metric == "snr_db" and figures.normalized_error == 0:
        return np.inf  # no noise at all
    return np.nan if value is None else float(value)


def _point(point: Point, on_front: bool) -> dict[str, Any]:
    figures = point.figures
    return {
        "method": point.method,
        "target": point.target,
        "ratio": point.ratio,
        "bits": point.bits,
        "status": "failed" if figures is None else "done",
        "reason": point.reason or None,
        "pareto": on_front,
        **{f.name: None if figures is None else getattr(figures, f.name) for f in fields(Figures)},
        "model": point.model,
    }


def _csv(points: Sequence[dict[str, Any]]) -> str:
    rows = [_row(point) for point in points]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _row(point: dict[str, Any]) -> dict[str, Any]:
    """The cells of a point, with one column for each bit width."""
    row = {key: _cell(value) for key, value in point.items() if key != "bit_widths"}
    widths = point["bit_widths"] or {}
    return {**row, **{f"filters_{width}": _cell(widths.get(width)) for width in WIDTHS}}


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return "" if value is None else value
