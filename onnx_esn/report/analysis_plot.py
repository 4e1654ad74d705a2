"""Prune or quantize? The plots of an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx_esn.errors import OptionError

from .layout import count, elide
from .plot_style import INK, QUIET, new_figure, quiet_axes, write_plot

_QUANTIZED, _PRUNED = "#0072B2", "#D55E00"
_LINES: tuple[Any, ...] = ("-", "--", "-.", ":")
_NAMED = 32  # layers whose names are readable beside each other
_BITS = (4, 2)


def plot_analysis(document: Mapping[str, Any], out_dir: str | Path) -> tuple[Path, ...]:
    """Draw ``snr`` and ``layers`` into a folder, each as PNG and SVG.

    Raises:
        OptionError: matplotlib is not installed, or the analysis has no layer.
        OutputError: the files cannot be written.
    """
    folder = Path(out_dir)
    if not document["layers"]:
        raise OptionError("there is nothing to draw: no layer was analysed")
    return (
        *write_plot(lambda: draw_snr(document), folder / "snr.png", folder / "snr.svg"),
        *write_plot(lambda: draw_layers(document), folder / "layers.png", folder / "layers.svg"),
    )


def draw_snr(document: Mapping[str, Any]) -> Any:
    """SNR of the weights against bits: the densities' lines, the model's tensors on top."""
    figure = new_figure()
    axes = figure.add_subplot()
    for density, line in zip(document["theory"], _LINES, strict=True):
        bits = [x["bits"] for x in density["snr"]]
        for key, colour in (("quantized", _QUANTIZED), ("pruned", _PRUNED)):
            values = [x[key] for x in density["snr"]]
            axes.plot(bits, values, line, color=colour, lw=1.4, alpha=0.9, zorder=2)
    layers = document["layers"]
    for key, colour, mark, side in (
        ("quantized", _QUANTIZED, "o", -1),
        ("pruned", _PRUNED, "s", 1),
    ):
        points = [
            (x["bits"] + side * 0.07 + 0.05 * _spread(i), x[key])
            for i, layer in enumerate(layers)
            for x in layer["weight_snr"]
            if x[key] is not None
        ]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, s=20, marker=mark, color=colour, alpha=0.55, linewidths=0, zorder=3)
    axes.set_xticks([2, 3, 4, 8], ["2\n87.5 %", "3\n81 %", "4\n75 %", "8\n50 %"])
    axes.set_xlabel("bits of a quantized weight; below: share of 16-bit weights pruned for as much")
    axes.set_ylabel("SNR of the weights (dB)")
    axes.set_ylim(bottom=0)
    quiet_axes(axes)
    _legend(axes, document)
    _title(axes, document, "fewer bits or fewer weights?", f"{count(len(layers), 'tensor')}")
    return figure


def draw_layers(document: Mapping[str, Any]) -> Any:
    """By how many dB quantization wins, layer by layer, at two compressions."""
    figure = new_figure()
    layers = document["layers"]
    panels = figure.subplots(1, len(_BITS), sharey=True)
    rows = range(len(layers))
    outputs = any(x["outputs"] for x in layers)
    for axes, bits in zip(panels, _BITS, strict=True):
        axes.axvline(0, color=INK, lw=1, zorder=1)
        drawn: list[float] = []
        for key in ("weight_snr", "outputs"):
            at = [(m, y) for y, x in zip(rows, layers, strict=True) if (m := _margin(x, key, bits))]
            if at:
                drawn += [m for m, _ in at]
                _dots(axes, at, key == "outputs" or not outputs)
        low, high = axes.get_xlim()
        reach = max(drawn, default=1.0), min(drawn, default=0.0)
        axes.set_xlim(min(-2.0, 1.1 * reach[1], low), max(2.0, 1.08 * reach[0], high))
        axes.axvspan(axes.get_xlim()[0], 0, color=_PRUNED, alpha=0.07, zorder=0)
        axes.set_title(f"{bits} bits, or {bits}/16 of the weights", fontsize=10.5, loc="left")
        quiet_axes(axes)
    first = panels[0]
    first.set_ylim(len(layers) - 0.5, -0.5)
    if len(layers) <= _NAMED:
        first.set_yticks(list(rows), [elide(x["name"], 28) for x in layers], fontsize=8)
    else:
        first.set_ylabel("layer, in graph order")
    said = "filled: of the outputs, after optimisation; hollow: of the weights"
    figure.supxlabel(
        "dB by which quantization is better; left of 0 pruning is\n"
        + (said if outputs else "of the weights"),
        fontsize=10.5,
    )
    figure.suptitle(
        f"{elide(document['model'], 40)}: quantization's lead over pruning",
        x=0.01,
        ha="left",
        fontsize=12.5,
        fontweight="bold",
    )
    return figure


def _margin(layer: Mapping[str, Any], key: str, bits: int) -> float | None:
    records: Sequence[Any] = layer["weight_snr"]
    if key == "outputs":
        records = layer["outputs"][0]["snr"] if layer["outputs"] else ()
    record = next((r for r in records if r["bits"] == bits), None)
    if record is None or record["quantized"] is None or record["pruned"] is None:
        return None
    return float(record["quantized"] - record["pruned"])


def _dots(axes: Any, points: Sequence[tuple[float, int]], filled: bool) -> None:
    for ours, colour in ((True, _QUANTIZED), (False, _PRUNED)):
        chosen = [p for p in points if (p[0] >= 0) == ours]
        if chosen:
            x, y = zip(*chosen, strict=True)
            face = colour if filled else "none"
            axes.scatter(x, y, s=26, facecolor=face, edgecolor=colour, linewidths=1.1, zorder=3)


def _spread(index: int) -> float:
    """A number in −1 … 1, so that points of many tensors do not hide each other."""
    return 2.0 * ((index * 0.618034) % 1.0) - 1.0


def _legend(axes: Any, document: Mapping[str, Any]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=_QUANTIZED, marker="o", label="quantized"),
        Line2D([], [], color=_PRUNED, marker="s", label="pruned, mask free"),
    ]
    handles += [
        Line2D([], [], color=QUIET, linestyle=line, label=density["density"])
        for density, line in zip(document["theory"], _LINES, strict=True)
    ]
    axes.legend(handles=handles, loc="upper left", frameon=False, fontsize=9.5)


def _title(axes: Any, document: Mapping[str, Any], title: str, more: str) -> None:
    axes.set_title(
        f"{elide(document['model'], 40)}: {title}", loc="left", fontweight="bold", pad=22
    )
    text = f"points: {more} of the model; lines: weights of a known density, closed forms"
    axes.text(0, 1.015, text, transform=axes.transAxes, fontsize=9.5, color=QUIET, va="bottom")
