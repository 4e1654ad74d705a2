"""Quality against one of the three costs: a line for each method, or for each pruning ratio."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from onnx_esn.errors import OptionError
from onnx_esn.numerics.pareto import SAME_COST, pareto_front

from . import numbers
from .layout import elide
from .plot_style import (
    METRICS,
    QUIET,
    Style,
    finished,
    method_rank,
    method_style,
    new_figure,
    nth_style,
    quiet_axes,
    subtitle,
    tick,
    value_of,
)

# What each cost is called, and what it adds up.
COSTS = {
    "esn_prime": ("ESN'_d", "MACs × bits of the filter (MAC·bit)"),
    "esn_d": ("ESN_d", "MACs × bits of each weight (MAC·bit)"),
    "esn_a": ("ESN_a", "MACs × W_int² of each weight (MAC·step²)"),
}

_NARROWEST = 1.2  # what the axis of the cost spans at least, as a ratio

_COLLAPSED = 10  # how far below the best, in distances of the median, a point is off the axis


class _Line(NamedTuple):
    style: Style
    points: list[Any]


def draw_pareto(document: Mapping[str, Any], cost: str = "esn_prime") -> Any:
    """Return the figure.

    Args:
        document: of a sweep.
        cost: a key of `COSTS`.

    Raises:
        OptionError: no point of the sweep has that cost and the sweep's metric.
    """
    name = document["metric"]
    done = [p for p in finished(document) if p.get(name) is not None and p.get(cost)]
    if not done:
        raise OptionError("there is nothing to draw: no point of the sweep was finished")
    figure = new_figure()
    axes = figure.add_subplot()
    axes.set_xscale("log")
    done.sort(key=lambda p: float(p[cost]))
    cheapest, dearest = done[0][cost], done[-1][cost]
    if dearest / cheapest < _NARROWEST:
        axes.set_xlim(cheapest / _NARROWEST, dearest * _NARROWEST)
    _draw_front(axes, done, name, cost)
    lines = _lines(done)
    floor = _floor([value_of(p, name) for p in done])
    for line in lines:
        _draw_line(axes, line, name, cost)
        if line.points[0].get("method") is None:
            _label_bits(axes, line, name, cost)
    _draw_input(axes, document["input"], name, cost)
    axes.margins(x=0.06, y=0.08)
    if floor is not None:
        top = max(*(value_of(p, name) for p in done), _reference(document["input"], name))
        if top > floor:
            axes.set_ylim(floor, top + 0.15 * (top - floor))
        _label_below(axes, lines, name, cost, floor)
    _finish(axes, document, name, cost)
    return figure


def _lines(done: Sequence[Any]) -> list[_Line]:
    found = {p["method"] for p in done if p.get("method") is not None}
    methods = sorted(found, key=method_rank)
    lines = [_Line(method_style(m), [p for p in done if p.get("method") == m]) for m in methods]
    ratios = sorted({p["ratio"] for p in done if p.get("method") is None})
    for index, ratio in enumerate(ratios):
        label = f"{100 * ratio:g} % of the filters removed" if ratio else "no filters removed"
        lines.append(_Line(nth_style(label, index), [p for p in done if p["ratio"] == ratio]))
    return lines


def _draw_front(axes: Any, done: Sequence[Any], name: str, cost: str) -> None:
    x, y = [p[cost] for p in done], [value_of(p, name) for p in done]
    on = pareto_front(x, y, tolerance=SAME_COST)
    axes.step(
        [value for value, front in zip(x, on, strict=True) if front],
        [value for value, front in zip(y, on, strict=True) if front],
        where="post",
        color="#d4d4d4",
        linewidth=8,
        solid_capstyle="round",
        zorder=1,
        label="Pareto front",
    )


def _draw_line(axes: Any, line: _Line, name: str, cost: str) -> None:
    label, color, mark = line.style
    x = [p[cost] for p in line.points]
    y = [value_of(p, name) for p in line.points]
    errors = [p["accuracy_error"] for p in line.points] if name == "accuracy" else []
    # The points of different methods lie above each other, and their bars would too.
    alone = line.points[0].get("method") is None
    if errors and alone and all(error is not None for error in errors):
        bars = [error * METRICS[name].scale for error in errors]
        axes.errorbar(x, y, bars, fmt="none", ecolor=color, elinewidth=0.8, alpha=0.4, zorder=2)
    axes.plot(
        x, y, f"{mark}-", color=color, lw=1.5, ms=7.5, mec="white", mew=0.9, label=label, zorder=3
    )


def _draw_input(axes: Any, figures: Mapping[str, Any], name: str, cost: str) -> None:
    if figures[name] is None:  # the input model has no noise against itself
        return
    label = f"input model ({numbers.bits(figures['mean_bits'])} bits"
    if figures.get(cost):
        label += f", {numbers.si(figures[cost])}"
    y = _reference(figures, name)
    axes.axhline(y, color=QUIET, linestyle=(0, (4, 3)), linewidth=1.2, label=f"{label})", zorder=1)


def _reference(figures: Mapping[str, Any], name: str) -> float:
    return -math.inf if figures[name] is None else value_of(figures, name)


def _floor(values: Sequence[float]) -> float | None:
    """Where the axis ends so that a few collapsed points do not flatten all others, or None."""
    best = max(values)
    low = best - _COLLAPSED * (best - statistics.median(values))
    kept = min(value for value in values if value >= low)
    return None if kept == min(values) else kept - 0.15 * (best - kept)


def _label_below(axes: Any, lines: Sequence[_Line], name: str, cost: str, floor: float) -> None:
    """Say at the lower edge which points lie below it; of close ones, one above the other."""
    taken: list[tuple[float, int]] = []
    for line in lines:
        for point in line.points:
            if (y := value_of(point, name)) >= floor:
                continue
            x = float(point[cost])
            at = 1 + max((n for other, n in taken if 0.75 < x / other < 1.34), default=-1)
            taken.append((x, at))
            axes.annotate(
                f"↓ {y:.0f} {METRICS[name].unit}",
                (x, floor),
                xytext=(0, 4 + 13 * at),
                textcoords="offset points",
                ha="center",
                fontsize=9.5,
                color=line.style.colour,
                zorder=5,
                path_effects=_halo(),
            )


def _label_bits(axes: Any, line: _Line, name: str, cost: str) -> None:
    for point in line.points:
        axes.annotate(
            str(point["bits"]),
            (point[cost], value_of(point, name)),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            color=line.style.colour,
            zorder=5,
            path_effects=_halo(),
        )


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="white")]


def _finish(axes: Any, document: Mapping[str, Any], name: str, cost: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axes.get_xlim()
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    narrow = high / low < 8
    axes.xaxis.set_major_locator(
        MaxNLocator(7, steps=(1, 2, 5, 10)) if narrow else LogLocator(subs=steps, numticks=15)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    symbol, what = COSTS[cost]
    metric = METRICS[name]
    axes.set_xlabel(f"{symbol}: {what}, log scale")
    axes.set_ylabel(f"{metric.label} ({metric.unit})")
    quiet_axes(axes)
    axes.figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9.5)
    short = metric.label.partition(" ")[0]
    title = f"{elide(document['model'], 50)}: {short} against {symbol}"
    axes.set_title(title, loc="left", fontweight="bold", pad=22)
    grid = any(point.get("method") is None for point in document["points"])
    said = ["numbers at the points: bits"] if grid else []
    errors = [e for p in document["points"] if (e := p.get("accuracy_error")) is not None]
    if name == "accuracy" and errors and not grid:
        said.append(f"standard error at most {100 * max(errors):.1f} points")
    axes.text(
        0,
        1.015,
        subtitle(document, *said),
        transform=axes.transAxes,
        fontsize=9.5,
        color=QUIET,
        va="bottom",
    )
