"""The table of a sweep: quality by pruning ratio and bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType

from .layout import cell, grid, note
from .numbers import decibel, percent, share, si

_QUALITY = {"accuracy": "accuracy", "top1": "top-1 agreement", "snr_db": "SNR"}


def sweep_table(document: Mapping[str, Any]) -> RenderableType:
    """One row per point of a sweep document; points on the Pareto front are marked."""
    metric = document["metric"]
    table = grid(f"{document['model']}: {_QUALITY[metric]} on {document['samples']} images")
    for heading in ("ratio", "bits"):
        table.add_column(heading, justify="right")
    table.add_column("MACs", justify="right")
    table.add_column("ESN'_d", justify="right")
    table.add_column(_QUALITY[metric], justify="right")
    table.add_column("")
    base = document["input"]
    if base is not None:
        table.add_row(
            "input", "", si(base["macs"]), si(base["esn_prime"]), _quality(base, metric), ""
        )
    for point in document["points"]:
        head = (f"{point['ratio']:g}", str(point["bits"]))
        if point["status"] == "failed":
            table.add_row(*head, "", "", "", cell(f"failed: {point['reason']}"))
            continue
        mark = "◂ front" if point["pareto"] else ""
        table.add_row(
            *head, si(point["macs"]), si(point["esn_prime"]), _quality(point, metric), mark
        )
    return Group(table, note("front: no other point costs less for the same or better quality"))


def _quality(figures: Mapping[str, Any], metric: str) -> str:
    value = figures.get(metric)
    if metric == "snr_db":
        return decibel(value)
    if metric == "accuracy":
        return share(value, figures.get("accuracy_error"))
    return percent(value)
