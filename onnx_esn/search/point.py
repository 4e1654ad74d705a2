"""One point of a sweep, as data and as its own file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx_esn.evaluation import Comparison, Evaluation
from onnx_esn.graph.model_file import write_text
from onnx_esn.passes.inspecting.esn_metrics import EsnMetrics

SCHEMA = "onnx-esn/sweep-point/2"


@dataclass(frozen=True)
class Figures:
    """Cost and quality of one model; None where a figure is unknown or not finite.

    Attributes:
        macs, parameters, esn_prime, mean_bits, file_bytes: see `Evaluation`.
        top1, cosine, snr_db, kl, normalized_error: agreement with the input model, see
            `Agreement`; ``snr_db`` is None where the outputs are equal (``normalized_error`` 0).
        accuracy, accuracy_error, accuracy_difference, accuracy_difference_error: see `Accuracy`.
        latency_ms, latency_ratio: only where they were asked for.
        esn_a, esn_d, bit_widths: see `EsnMetrics`; ``"0"`` counts the filters that the input model
            has more, too.
    """

    macs: int
    parameters: int
    esn_prime: float
    mean_bits: float | None
    file_bytes: int
    top1: float | None = None
    cosine: float | None = None
    snr_db: float | None = None
    kl: float | None = None
    normalized_error: float | None = None
    accuracy: float | None = None
    accuracy_error: float | None = None
    accuracy_difference: float | None = None
    accuracy_difference_error: float | None = None
    latency_ms: float | None = None
    latency_ratio: float | None = None
    esn_a: float | None = None
    esn_d: float | None = None
    bit_widths: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Point:
    """A finished or failed point, either of a method and a target, or of the grid.

    Attributes:
        method: a key of `METHODS`; None in the grid.
        target: mean bits per MAC of the input model that the method was to reach; None in the grid.
        ratio: share of prunable filters removed, 0 for none; None for a method.
        bits: bits per weight; None for a method.
        figures: of the compressed model, or None where it failed.
        reason: why it failed, or "".
        model: file of the compressed model, relative to the sweep's folder, where it was saved.
    """

    method: str | None = None
    target: float | None = None
    ratio: float | None = None
    bits: int | None = None
    figures: Figures | None = None
    reason: str = ""
    model: str | None = None

    @property
    def label(self) -> str:
        """Name for files and messages, such as ``joint_2`` or ``r0.25_b4``."""
        if self.method is not None:
            return f"{self.method}_{self.target:g}"
        return f"r{self.ratio:g}_b{self.bits}"


@dataclass(frozen=True)
class Baseline:
    """What the points of a sweep are compared with.

    Attributes:
        figures: of the input model.
        images: name of the set.
        samples: number of samples the quality was measured on.
    """

    figures: Figures
    images: str
    samples: int


def figures_of(model: Evaluation, esn: EsnMetrics, filters: int) -> Figures:
    """The flat figures of an evaluation; `filters` is how many the input model has."""
    values: dict[str, Any] = {"esn_a": esn.esn_a, "esn_d": esn.esn_d}
    gone = max(filters - esn.filters, 0)
    values["bit_widths"] = {**esn.bit_widths, "0": esn.bit_widths["0"] + gone}
    if model.agreement is not None:
        for name in ("top1", "cosine", "snr_db", "kl", "normalized_error"):
            values[name] = _finite(getattr(model.agreement, name))
    if model.accuracy is not None:
        values["accuracy"] = model.accuracy.value
        values["accuracy_error"] = model.accuracy.error
        values["accuracy_difference"] = model.accuracy.difference
        values["accuracy_difference_error"] = model.accuracy.difference_error
    if model.latency is not None:
        values["latency_ms"] = model.latency.median_ms
        values["latency_ratio"] = model.latency.ratio
    return Figures(
        model.macs, model.parameters, model.esn_prime, model.mean_bits, model.file_bytes, **values
    )


def baseline_of(comparison: Comparison, esn: EsnMetrics) -> Baseline:
    """The reference of an evaluation."""
    reference = comparison.models[comparison.reference]
    figures = figures_of(reference, esn, esn.filters)
    return Baseline(figures, comparison.images, comparison.samples)


def write_point(path: Path, key: str, point: Point, baseline: Baseline) -> None:
    """Write a finished point at once: the file is there whole, or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    document = {
        "schema": SCHEMA,
        "key": key,
        "point": asdict(point),
        "baseline": asdict(baseline),
    }
    write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", path)


def read_point(path: Path, key: str) -> tuple[Point, Baseline] | None:
    """A finished point of that key, or None: no such file, another key, or not readable."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA or document["key"] != key:
            return None
        point, baseline = document["point"], document["baseline"]
        return (
            Point(**{**point, "figures": Figures(**point["figures"])}),
            Baseline(**{**baseline, "figures": Figures(**baseline["figures"])}),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
