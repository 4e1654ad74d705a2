"""The points of a sweep: quality against cost, the front, and the point that was chosen."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

from onnx_esn.report import numbers
from onnx_esn.report.plot_style import METRICS

from .axes import Axis, log_axis
from .markup import Child, Markup, element
from .series import Series, series_of
from .subject import Document
from .sweep_points import point_name, quality_shown

_HEIGHT = 380
_COLLAPSED = (
    6  # below the best, in distances of the median: a point lower than that is off the axis
)


def front_chart(sweep: Document, chosen: int) -> Markup:
    """The chart; each point is a link to its row in the table."""
    series = series_of(sweep)
    points = [entry for line in series for entry in line.points]
    metric = sweep["metric"]
    scale = METRICS[metric].scale
    across = log_axis([float(p["esn_prime"]) for _, p in points])
    values = [scale * p[metric] for _, p in points]
    reference = sweep["input"][metric]
    top = max([*values] + ([scale * reference] if reference is not None else []))
    low = _floor(values)
    room = 0.07 * (top - low) or 0.5
    up = Axis(low - room, top + room)
    parts: list[Child] = [_grid(across, up, METRICS[metric].unit)]
    if reference is not None:
        parts.append(_reference(up, scale * reference))
    parts.append(_front_line([p for _, p in points if p["pareto"]], across, up, metric))
    for line in series:
        ends = [
            (across.place(p["esn_prime"]), _down(up, max(scale * p[metric], low)))
            for _, p in line.points
        ]
        for a, b in pairwise(ends):
            parts.append(_line(a, b, class_=f"join m{line.look}"))
    for line in series:
        for index, point in line.points:
            parts.append(_point(line, index, point, metric, (across, up, low), index == chosen))
    svg = element(
        "svg",
        *parts,
        width="100%",
        height=_HEIGHT,
        class_="plot",
        id="front-chart",
        role="group",
        aria_label="Quality against cost; each point is a link to its row in the table below",
    )
    unit = METRICS[metric].unit
    title = element("p", f"{METRICS[metric].label} ({unit})", class_="axis-title")
    below = element(
        "p", "ESN'_d (MAC·bit), logarithmic: left is cheaper", class_="axis-title below"
    )
    keys = [element("li", _swatch(line), line.label) for line in series]
    keys.append(element("li", element("i", class_="swatch frontline", aria_hidden="true"), "front"))
    keys.append(element("li", element("i", class_="swatch ring", aria_hidden="true"), "chosen"))
    return element(
        "figure",
        element("ul", *keys, class_="legend"),
        title,
        element("div", svg, class_="plot-area"),
        below,
        class_="chart front",
    )


def _swatch(line: Series) -> Markup:
    return element("svg", line.mark(), viewBox="-8 -8 16 16", aria_hidden="true")


def _grid(across: Axis, up: Axis, unit: str) -> Markup:
    parts: list[Child] = []
    for tick in up.ticks(6):
        y = f"{_down(up, tick)}%"
        parts.append(element("line", x1=0, x2="100%", y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{tick:g}".replace("-", "−"), x=-8, y=y, class_="tick end"))
    for tick in across.ticks(7):
        x = f"{across.place(tick)}%"
        parts.append(element("line", x1=x, x2=x, y1=0, y2="100%", class_="grid"))
        label = element("text", _plain(tick), x=0, y=0, class_="tick mid")
        parts.append(element("svg", label, x=x, y="100%", overflow="visible", class_="below"))
    return element("g", *parts, aria_hidden="true")


def _reference(up: Axis, value: float) -> Markup:
    y = f"{_down(up, value)}%"
    return element(
        "g",
        element("line", x1=0, x2="100%", y1=y, y2=y, class_="reference"),
        element("text", f"input model, {value:.1f}", x=6, y=y, dy=-6, class_="tick low"),
    )


def _front_line(front: Sequence[Document], across: Axis, up: Axis, metric: str) -> Markup:
    scale = METRICS[metric].scale
    ends = sorted((across.place(p["esn_prime"]), _down(up, scale * p[metric])) for p in front)
    parts = []
    for (x1, y1), (x2, y2) in pairwise(ends):
        parts += [_line((x1, y1), (x2, y1)), _line((x2, y1), (x2, y2))]
    return element("g", *parts, class_="frontline", aria_hidden="true")


def _line(a: tuple[float, float], b: tuple[float, float], class_: str | None = None) -> Markup:
    """A line between two places, each percentages from the left and from the top."""
    ends = {"x1": f"{a[0]}%", "y1": f"{a[1]}%", "x2": f"{b[0]}%", "y2": f"{b[1]}%"}
    return element("line", class_=class_, **ends)


def _point(
    line: Series,
    index: int,
    point: Document,
    metric: str,
    axes: tuple[Axis, Axis, float],
    chosen: bool,
) -> Markup:
    """A mark that is a link; what is below the lowest value to show stands there, with an arrow."""
    across, up, low = axes
    value = METRICS[metric].scale * point[metric]
    told = f"{point_name(point)}: {quality_shown(point, metric)}, "
    told += f"ESN'_d {numbers.si(point['esn_prime'])}, {numbers.si(point['macs'])} MACs"
    told += ", on the front" if point["pareto"] else ""
    told += ", below the axis" if value < low else ""
    place = element(
        "svg",
        element("circle", r=13, class_="hit"),
        element("circle", r=11, class_="ring") if chosen else None,
        line.mark(),
        element("path", d="M-4 10L0 16 4 10z", class_="off") if value < low else None,
        x=f"{across.place(point['esn_prime'])}%",
        y=f"{_down(up, max(value, low))}%",
        overflow="visible",
    )
    return element(
        "a",
        element("title", told),
        place,
        href=f"#point-{index}",
        aria_label=told,
        class_="point chosen" if chosen else "point",
        data_point=index,
    )


def _down(up: Axis, value: float) -> float:
    """Percentage from the top."""
    return round(100 - up.place(value), 2)


def _floor(values: Sequence[float]) -> float:
    """The lowest value to show: what collapsed would press everything else together."""
    best = max(values)
    usual = statistics.median(best - v for v in values) or 1.0
    return max(min(values), best - _COLLAPSED * usual)


def _plain(value: float) -> str:
    text = numbers.si(value)
    mantissa = text.rstrip("kMGTPE")
    return f"{float(mantissa):g}{text[len(mantissa) :]}"
