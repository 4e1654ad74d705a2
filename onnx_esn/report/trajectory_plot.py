"""The plots of `trace`: S, N and ESN_a by epoch (figure 2), ESN_a against accuracy (figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .plot_style import QUIET, new_figure, quiet_axes, tick, write_plot

_COLOUR = "#0072B2"
_PANELS = (
    ("signal", "S, mean of the checkpoints"),
    ("noise", "N, mean of the checkpoints"),
    ("esn_a", "ESN_a = Σ n/12 · S/N"),
)
_TWO = 2  # fewest epochs that make a curve


def plot_trace(document: Mapping[str, Any], out_dir: str | Path) -> tuple[Path, ...]:
    """Draw a document of `Trace` into a folder, as PNG and SVG.

    ``trace`` has the curves by epoch; ``trace_accuracy`` is drawn where accuracies are known.

    Raises:
        OptionError: matplotlib is not installed.
        OutputError: the files cannot be written.
    """
    folder = Path(out_dir)
    epochs = document["epochs"]
    paths = [*write_plot(lambda: _curves(epochs), folder / "trace.png", folder / "trace.svg")]
    judged = [x for x in epochs if x["accuracy"] is not None and x["esn_a"]]
    if len(judged) >= _TWO:
        png, svg = (folder / f"trace_accuracy.{kind}" for kind in ("png", "svg"))
        paths += write_plot(lambda: _against_accuracy(judged), png, svg)
    return tuple(paths)


def _curves(epochs: Sequence[Mapping[str, Any]]) -> Any:
    figure = new_figure()
    figure.set_size_inches(11.0, 4.4)
    names = [x["layer"] for x in epochs[0]["layers"]]
    for place, (key, title) in enumerate(_PANELS, 1):
        axes = figure.add_subplot(1, len(_PANELS), place)
        at = [x["epoch"] for x in epochs]
        for name in names:
            axes.plot(at, [_value(e, key, name) for e in epochs], color="#b9b9b9", lw=0.9)
        axes.plot(at, [_value(e, key) for e in epochs], "o-", color=_COLOUR, lw=2, ms=5)
        axes.set_yscale("log")
        axes.set_title(title, loc="left", fontsize=10.5)
        axes.set_xlabel("epoch")
        _whole(axes.xaxis)
        quiet_axes(axes)
    line = figure.axes[0].plot([], [], "o-", color=_COLOUR, lw=2, ms=5, label="all layers")
    thin = figure.axes[0].plot([], [], color="#b9b9b9", lw=0.9, label="each layer")
    figure.legend(handles=[*line, *thin], loc="outside lower center", ncols=2, frameon=False)
    return figure


def _whole(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(6, integer=True))


def _value(epoch: Mapping[str, Any], key: str, layer: str | None = None) -> float:
    """A figure of an epoch, or of one of its layers; NaN where there is none."""
    part = epoch if layer is None else next(x for x in epoch["layers"] if x["layer"] == layer)
    value = part[key]
    if not value:
        return float("nan")
    return float(value) if key == "esn_a" else float(value) / epoch["samples"]


def _against_accuracy(epochs: Sequence[Mapping[str, Any]]) -> Any:
    from matplotlib.ticker import FuncFormatter

    figure = new_figure()
    axes = figure.add_subplot()
    axes.set_xscale("log")
    x, y = [e["esn_a"] for e in epochs], [100 * e["accuracy"] for e in epochs]
    axes.plot(x, y, "o-", color=_COLOUR, lw=1.5, ms=7)
    for epoch, at in zip(epochs, zip(x, y, strict=True), strict=True):
        axes.annotate(
            str(epoch["epoch"]), at, xytext=(0, 7), textcoords="offset points", ha="center",
            fontsize=9, color=QUIET,
        )  # fmt: skip
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: tick(v)))
    axes.set_xlabel("ESN_a of the epoch, log scale")
    axes.set_ylabel("accuracy (%)")
    axes.set_title("Accuracy against ESN_a, epoch by epoch", loc="left", fontweight="bold")
    quiet_axes(axes)
    return figure
