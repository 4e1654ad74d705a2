"""What a point of a sweep is called, and its quality in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx_esn.report import numbers

from .subject import Document


def point_name(point: Document) -> str:
    """Method and target, or ratio and bits."""
    if point["method"] is not None:
        return f"{point['method']} at {numbers.bits(point['target'])} bits per MAC"
    removed = f"{100 * point['ratio']:g} % removed" if point["ratio"] else "nothing removed"
    return f"{removed}, {point['bits']} bits"


def quality_shown(figures: Mapping[str, Any], metric: str) -> str:
    """The quality of a point, with its error where it has one."""
    value = figures[metric]
    if metric == "snr_db":
        exact = value is None and figures.get("normalized_error") == 0
        return "exact" if exact else numbers.decibel(value)
    if metric == "accuracy":
        return numbers.share(value, figures.get("accuracy_error"))
    return numbers.percent(value)
