"""What all plots share: colours, the metrics' names, deterministic files.

matplotlib is an extra and is imported only when a plot is drawn.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from onnx_esn.errors import OptionError
from onnx_esn.graph.model_file import write_bytes

from . import numbers
from .layout import count, elide

_INSTALL = "plots need matplotlib, which is not installed: pip install 'onnx-esn[plot]'"
SIZE, _DPI = (8.0, 5.2), 150
INK, QUIET = "#333333", "#6e6e6e"
# Told apart by people who see few colours (Okabe and Ito), and by their marks in black and white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKS = ("o", "s", "^", "D", "v", "P", "X")


class Metric(NamedTuple):
    """A measure of quality: its name, what it is multiplied by, and the unit then."""

    label: str
    scale: float
    unit: str


class Style(NamedTuple):
    """How a line is named and drawn."""

    label: str
    colour: str
    mark: str


METRICS = {
    "accuracy": Metric("accuracy", 100.0, "%"),
    "top1": Metric("top-1 agreement with the input model", 100.0, "%"),
    "snr_db": Metric("SNR of the outputs against the input model", 1.0, "dB"),
}
# The same in every plot, whichever of them a sweep has.
_METHODS = {
    "nearest": Style("nearest (plain rounding)", "#6e6e6e", "X"),
    "quantize-only": Style("quantize only", "#0072B2", "o"),
    "prune-only": Style("prune only (8 bits)", "#D55E00", "s"),
    "prune-then-quantize": Style("prune, then quantize", "#E69F00", "^"),
    "joint": Style("joint", "#009E73", "D"),
    "aciq": Style("ACIQ", "#000000", "v"),
}


def method_style(method: str) -> Style:
    """The style of a method of a sweep."""
    return _METHODS.get(method, Style(method, "#000000", "v"))


def method_rank(method: str) -> tuple[int, str]:
    """Where a method stands in a legend."""
    known = list(_METHODS)
    return known.index(method) if method in known else len(known), method


def nth_style(label: str, index: int) -> Style:
    """The style of the line with that index, for lines that have none of their own."""
    return Style(label, _COLOURS[index % len(_COLOURS)], _MARKS[index % len(_MARKS)])


def finished(document: Mapping[str, Any]) -> list[Any]:
    """The points of a sweep that have figures to draw."""
    return [p for p in document["points"] if p["status"] == "done"]


def value_of(point: Mapping[str, Any], name: str) -> float:
    """The quality of a point, as it is drawn."""
    return float(point[name]) * METRICS[name].scale


def write_plot(draw: Callable[[], Any], png: Path, svg: Path) -> tuple[Path, Path]:
    """Draw a figure and write it in both formats.

    The same figure gives the same bytes (with one version of matplotlib), whatever the user's
    matplotlib settings are.

    Raises:
        OptionError: matplotlib is not installed.
        OutputError: a file cannot be written.
    """
    try:
        import matplotlib.style
    except ImportError as error:
        raise OptionError(_INSTALL) from error
    own = {"svg.hashsalt": "onnx-esn", "font.size": 10.5, "text.color": INK}
    with matplotlib.style.context(own, after_reset=True):
        figure = draw()
        image, vector = io.BytesIO(), io.BytesIO()
        figure.savefig(image, format="png", dpi=_DPI, metadata={"Software": None})
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": "onnx-esn"})
    return write_bytes(image.getvalue(), png), write_bytes(vector.getvalue(), svg)


def new_figure() -> Any:
    """An empty figure with a canvas of its own, so that no window or global state is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def quiet_axes(axes: Any) -> None:
    """A light grid and no frame at the top and on the right."""
    axes.grid(which="major", color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def tick(value: float) -> str:
    """A number at an axis: ``20M``."""
    text = numbers.si(value)
    mantissa = text.rstrip("kMGTPE")
    return f"{float(mantissa):g}{text[len(mantissa) :]}" if math.isfinite(value) else ""


def subtitle(document: Mapping[str, Any], *more: str) -> str:
    """What the figures were measured on, what else there is to say, and what failed."""
    points: Sequence[Any] = document["points"]
    failed = sum(point["status"] == "failed" for point in points)
    parts = [f"{count(document['samples'], 'sample')} of {elide(document['images'], 40)}", *more]
    if failed:
        parts.append(f"{failed} of {count(len(points), 'point')} failed")
    return " · ".join(parts)
