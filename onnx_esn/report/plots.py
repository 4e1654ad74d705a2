"""The Pareto plot of a sweep. matplotlib is an extra and is imported only when a plot is drawn."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from onnx_esn.errors import OptionError
from onnx_esn.graph.model_file import write_bytes

from . import numbers
from .layout import count, elide

_INSTALL = "plots need matplotlib, which is not installed: pip install 'onnx-esn[plot]'"
_SIZE, _DPI = (8.0, 5.2), 150
_INK, _QUIET = "#333333", "#8c8c8c"
# Told apart by people who see few colours (Okabe and Ito), and by their marks in black and white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKS = ("o", "s", "^", "D", "v", "P", "X")


class _Metric(NamedTuple):
    label: str
    scale: float
    unit: str


_METRICS = {
    "accuracy": _Metric("accuracy", 100.0, "%"),
    "top1": _Metric("top-1 agreement with the input model", 100.0, "%"),
    "snr_db": _Metric("SNR of the outputs against the input model", 1.0, "dB"),
}


def plot_sweep(document: Mapping[str, Any], out_dir: str | Path) -> tuple[Path, Path]:
    """Draw ``pareto.png`` and ``pareto.svg`` of a sweep's document into a folder.

    Raises:
        OptionError: matplotlib is not installed, or no point of the sweep was finished.
        OutputError: the files cannot be written.
    """
    folder = Path(out_dir)
    return pareto_plot(document, folder / "pareto.png", folder / "pareto.svg")


def pareto_plot(document: Mapping[str, Any], png: Path, svg: Path) -> tuple[Path, Path]:
    """Draw quality against ESN'_d: a line for each pruning ratio, the bits at each point.

    The same document gives the same bytes (with one version of matplotlib), whatever the user's
    matplotlib settings are.

    Raises:
        OptionError: matplotlib is not installed, or no point of the sweep was finished.
        OutputError: a file cannot be written.
    """
    try:
        import matplotlib.style
    except ImportError as error:
        raise OptionError(_INSTALL) from error
    own = {"svg.hashsalt": "onnx-esn", "font.size": 10.0, "text.color": _INK}
    with matplotlib.style.context(own, after_reset=True):
        figure = _draw(document)
        image, vector = io.BytesIO(), io.BytesIO()
        figure.savefig(image, format="png", dpi=_DPI, metadata={"Software": None})
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": "onnx-esn"})
    return write_bytes(image.getvalue(), png), write_bytes(vector.getvalue(), svg)


def _draw(document: Mapping[str, Any]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    name = document["metric"]
    metric = _METRICS[name]
    done = [p for p in document["points"] if p[name] is not None and p["esn_prime"]]
    if not done:
        raise OptionError("there is nothing to draw: no point of the sweep was finished")
    figure = Figure(figsize=_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_front(axes, done, name, metric)
    for index, ratio in enumerate(sorted({point["ratio"] for point in done})):
        line = sorted((p for p in done if p["ratio"] == ratio), key=lambda p: p["esn_prime"])
        _draw_ratio(axes, ratio, line, name, metric, index)
        _label_bits(axes, line, name, metric, _COLOURS[index % len(_COLOURS)])
    _draw_input(axes, document["input"], name, metric)
    _finish(figure, axes, document, metric)
    return figure


def _draw_front(axes: Any, done: Sequence[Any], name: str, metric: _Metric) -> None:
    front = sorted((p for p in done if p["pareto"]), key=lambda p: p["esn_prime"])
    x = [point["esn_prime"] for point in front]
    y = [point[name] * metric.scale for point in front]
    axes.step(
        x,
        y,
        where="post",
        color="#d9d9d9",
        linewidth=7,
        solid_capstyle="round",
        zorder=1,
        label="Pareto front",
    )


def _draw_ratio(
    axes: Any, ratio: float, line: Sequence[Any], name: str, metric: _Metric, index: int
) -> None:
    color, mark = _COLOURS[index % len(_COLOURS)], _MARKS[index % len(_MARKS)]
    x = [point["esn_prime"] for point in line]
    y = [point[name] * metric.scale for point in line]
    label = f"{100 * ratio:g} % of the filters removed" if ratio else "no filters removed"
    errors = [point["accuracy_error"] for point in line] if name == "accuracy" else []
    if errors and all(error is not None for error in errors):
        bars = [error * metric.scale for error in errors]
        axes.errorbar(x, y, bars, fmt="none", ecolor=color, elinewidth=0.8, alpha=0.5, zorder=2)
    axes.plot(x, y, color=color, linewidth=1.2, alpha=0.75, zorder=2)
    axes.plot(x, y, mark, color=color, markersize=6.5, mec="white", mew=0.8, label=label, zorder=3)


def _draw_input(axes: Any, figures: Any, name: str, metric: _Metric) -> None:
    cost, value = figures["esn_prime"], figures[name]
    label = f"input model ({numbers.bits(figures['mean_bits'])} bit)"
    if value is None:  # the input model has no noise against itself
        axes.axvline(cost, color=_QUIET, linestyle=":", linewidth=1.2, label=label, zorder=1)
        return
    y = value * metric.scale
    axes.axhline(y, color=_QUIET, linestyle=":", linewidth=1, zorder=1)
    axes.plot([cost], [y], "*", color=_INK, markersize=13, mec="white", label=label, zorder=4)


def _label_bits(axes: Any, line: Sequence[Any], name: str, metric: _Metric, color: str) -> None:
    from matplotlib.patheffects import withStroke

    for point in line:
        axes.annotate(
            str(point["bits"]),
            (point["esn_prime"], point[name] * metric.scale),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=color,
            zorder=5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _finish(figure: Any, axes: Any, document: Mapping[str, Any], metric: _Metric) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    narrow = high / low < 8
    axes.xaxis.set_major_locator(
        MaxNLocator(6, steps=(1, 2, 5, 10)) if narrow else LogLocator(subs=steps, numticks=15)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("ESN'_d: MACs × bits of the filter (MAC·bit), log scale")
    axes.set_ylabel(f"{metric.label} ({metric.unit})")
    axes.margins(y=0.08)
    axes.grid(which="major", color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
    axes.set_title(elide(document["model"], 60), loc="left", fontweight="bold", pad=20)
    axes.text(
        0,
        1.015,
        _subtitle(document),
        transform=axes.transAxes,
        fontsize=9,
        color=_QUIET,
        va="bottom",
    )


def _tick(value: float) -> str:
    text = numbers.si(value)
    mantissa = text.rstrip("kMGTPE")
    return f"{float(mantissa):g}{text[len(mantissa) :]}" if math.isfinite(value) else ""


def _subtitle(document: Mapping[str, Any]) -> str:
    points = document["points"]
    failed = sum(point["status"] == "failed" for point in points)
    text = f"{count(document['samples'], 'sample')} of {elide(document['images'], 40)}"
    text += " · numbers at the points: bits"
    return text + (f" · {failed} of {count(len(points), 'point')} failed" if failed else "")
