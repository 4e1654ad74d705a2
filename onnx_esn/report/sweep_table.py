"""The tables of a sweep: quality by method and target, or by ratio and bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from .layout import cell, grid, note
from .numbers import bits, decibel, percent, share, si, times

_QUALITY = {"accuracy": "accuracy", "top1": "top-1 agreement", "snr_db": "SNR"}
_BASELINE = "nearest"


def sweep_table(document: Mapping[str, Any]) -> RenderableType:
    """One row per point of a sweep document; points on the Pareto front are marked.

    Below it, where the sweep has several methods: what the best of them costs at equal quality.
    """
    metric = document["metric"]
    methods = any(point.get("method") is not None for point in document["points"])
    table = grid(f"{document['model']}: {_QUALITY[metric]} on {document['samples']} images")
    table.add_column("method" if methods else "ratio", justify="left" if methods else "right")
    table.add_column("target" if methods else "bits", justify="right")
    costs = ("MACs", "ESN'_d", "ESN_d", "ESN_a") if methods else ("MACs", "ESN'_d")
    for heading in (*costs, _QUALITY[metric]):
        table.add_column(heading, justify="right")
    table.add_column("")
    base = document["input"]
    if base is not None:
        table.add_row("input", "", *_figures(base, metric, methods), "")
    for point in document["points"]:
        if methods:
            head = (point["method"], bits(point["target"]))
        else:
            head = (f"{point['ratio']:g}", str(point["bits"]))
        if point["status"] == "failed":
            blank = [""] * (len(costs) + 1)
            table.add_row(*head, *blank, cell(f"failed: {point['reason']}"))
            continue
        mark = "◂ front" if point["pareto"] else ""
        table.add_row(*head, *_figures(point, metric, methods), mark)
    parts: list[RenderableType] = [table]
    if methods:
        parts.append(note("target: mean bits per MAC of the input model, ESN'_d in MAC·bit"))
    parts.append(note("front: no other point costs less ESN'_d for the same or better quality"))
    levels = document.get("equal_quality") or ()
    if levels:
        parts += [Text(""), *_equal_quality(levels, metric)]
    return Group(*parts)


def _equal_quality(levels: Sequence[Mapping[str, Any]], metric: str) -> list[RenderableType]:
    baseline = levels[0].get("baseline", _BASELINE)
    table = grid(f"Cost at equal {_QUALITY[metric]}, against {baseline}")
    headings = (_QUALITY[metric], baseline, "best", "its cost", "cost factor")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "best" else "right")
    for level in levels:
        best = level["best"]
        bound = "≤ " if level.get("at_most") else ""
        value = level["level"]
        table.add_row(
            decibel(value) if metric == "snr_db" else percent(value),
            _known(level["costs"][baseline]),
            best or "n/a",
            "n/a" if best is None else "≤ cheapest" if bound else si(level["costs"][best]),
            "n/a" if level["factor"] is None else bound + times(level["factor"]),
        )
    said = (
        "ESN'_d, log-linear between a method's points; n/a: outside them; ≤: its cheapest is better"
    )
    return [table, note(said)]


def _known(cost: float | None) -> str:
    return "n/a" if cost is None else si(cost)


def _figures(figures: Mapping[str, Any], metric: str, methods: bool) -> list[str]:
    names = ("macs", "esn_prime", "esn_d", "esn_a") if methods else ("macs", "esn_prime")
    return [*(si(figures.get(name)) for name in names), _quality(figures, metric)]


def _quality(figures: Mapping[str, Any], metric: str) -> str:
    value = figures.get(metric)
    if metric == "snr_db":
        return decibel(value)
    if metric == "accuracy":
        return share(value, figures.get("accuracy_error"))
    return percent(value)
