"""How many filters have how many bits: one small histogram for each method, at one target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .layout import elide
from .plot_style import QUIET, finished, method_rank, method_style, new_figure, quiet_axes

_COLUMNS = 3
_USUAL = 2.0  # bits per MAC


def chosen_target(document: Mapping[str, Any]) -> float | None:
    """The target that most methods reached, of several the one nearest 2; None for a grid."""
    known = [p for p in finished(document) if p.get("method") and p.get("bit_widths")]
    reached = Counter(float(p["target"]) for p in known)
    return min(reached, key=lambda t: (-reached[t], abs(t - _USUAL), t), default=None)


def draw_bit_widths(document: Mapping[str, Any], target: float) -> Any:
    """Return the figure.

    Args:
        document: of a sweep.
        target: one of its targets, that some method reached.
    """
    points = [
        p
        for p in finished(document)
        if p.get("method") and p["target"] == target and p.get("bit_widths")
    ]
    points.sort(key=lambda p: method_rank(p["method"]))
    widths = [width for width in points[0]["bit_widths"] if width != "float"]
    if any(p["bit_widths"]["float"] for p in points):
        widths.append("float")
    figure = new_figure()
    columns = min(_COLUMNS, len(points))
    rows = -(-len(points) // columns)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for index, axes in enumerate(grid.flat):
        if index >= len(points):
            axes.set_visible(False)
            continue
        _draw_panel(axes, points[index], widths)
        if index % columns == 0:
            axes.set_ylabel("filters")
    figure.supxlabel("bits of the filter's largest code, 0: pruned", fontsize=10.5)
    figure.suptitle(
        f"{elide(document['model'], 40)}: bit widths at {target:g} bits per MAC of the input model",
        x=0.01,
        ha="left",
        fontweight="bold",
        fontsize=12.5,
    )
    return figure


def _draw_panel(axes: Any, point: Mapping[str, Any], widths: list[str]) -> None:
    style = method_style(point["method"])
    counts = [point["bit_widths"][width] for width in widths]
    bars = axes.bar(range(len(widths)), counts, color=style.colour, width=0.8)
    labels = [str(count) if count else "" for count in counts]
    axes.bar_label(bars, labels, fontsize=8.5, color=QUIET, padding=1)
    axes.set_xticks(range(len(widths)), widths)
    axes.margins(y=0.12)
    quiet_axes(axes)
    axes.grid(visible=False, axis="x")
    axes.tick_params(axis="x", length=0)
    axes.set_title(style.label, loc="left", fontsize=10.5)
