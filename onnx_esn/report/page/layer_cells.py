"""A row of the table of layers: numbers as text, with bars drawn by the style sheet behind them.

The lengths of bars are custom properties of a cell (``--b`` and ``--a``: before and after), so that
a model of thousands of layers makes a page that is small and quick.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx_esn.report import numbers
from onnx_esn.report.layout import count

from .markup import Markup, element
from .pieces import change, name
from .subject import Document

WIDEST = 8.0  # bits
_EXACT = 1e9  # sorts above every SNR
Totals = Mapping[tuple[str, str], float]


def layer_row(
    index: int, layer: Document, totals: Totals, largest: float, loudest: float
) -> Markup:
    """The row of a layer.

    Args:
        index: its place in the graph.
        layer: its figures.
        totals: of the model, by side and figure.
        largest: the share of a layer that has the longest bar.
        loudest: the SNR in dB that has the longest bar.
    """
    before, after = layer["before"], layer["after"]
    side = before or after
    head = element("th", name(layer["name"], 56), element("small", _kind(side, before, after)),
                   scope="row")  # fmt: skip
    filters = [numbers.UNKNOWN if s is None else f"{s['filters']:,}" for s in (before, after)]
    return element(
        "tr",
        head,
        element("td", change(*filters), data_v=_sortable(figure(layer, "after", "filters"))),
        _bar_cell(layer, "macs", totals, largest),
        _bits_cell(before, after),
        _bar_cell(layer, "esn_prime", totals, largest),
        _snr_cell(layer, loudest),
        id=f"layer-{index}",
    )


def figure(layer: Document, side: str, key: str) -> float | None:
    """A figure of a layer; None where it, or the layer on that side, is not known."""
    found = layer[side]
    value: float | None = None if found is None else found[key]
    return value


def share_of(layer: Document, side: str, key: str, totals: Totals) -> float | None:
    """The layer's part of its model."""
    return numbers.ratio(figure(layer, side, key), totals[side, key])


def snr_shown(layer: Document) -> str:
    """SNR of a layer's output; ``exact`` where nothing differs, a dash where not compared."""
    return "exact" if layer["output_equal"] else numbers.decibel(layer["output_snr_db"])


def _bar_cell(layer: Document, key: str, totals: Totals, largest: float) -> Markup:
    old, new = (figure(layer, side, key) for side in ("before", "after"))
    shares = [share_of(layer, side, key, totals) for side in ("before", "after")]
    lengths = [
        f"--{mark}:{_length((share or 0.0) / largest)}"
        for mark, share in zip("ba", shares, strict=True)
    ]
    shown = change(numbers.si(old), numbers.si(new))
    return element("td", shown, data_v=_sortable(new), class_="bar", style=";".join(lengths))


def _bits_cell(before: Document | None, after: Document | None) -> Markup:
    old, new = (numbers.bits(None if s is None else s["bits_mean"]) for s in (before, after))
    if after is None or after["bits_mean"] is None:
        return element("td", change(old, new))
    low, high, mean = (after[f"bits_{which}"] for which in ("min", "max", "mean"))
    if not after["quantized"]:
        return element("td", change(old, new), data_v=_sortable(mean))
    width = (high - low) / WIDEST
    # The place of a background is a share of what it leaves free.
    left = low / WIDEST / (1 - width) if width < 1 else 0.0
    style = f"--l:{_length(left)};--w:{_length(width)};--m:{_length(mean / WIDEST)}"
    told = f"{low:g} to {high:g} bits" if low != high else None
    return element(
        "td", change(old, new), data_v=_sortable(mean), class_="range", style=style, title=told
    )


def _snr_cell(layer: Document, loudest: float) -> Markup:
    snr = layer["output_snr_db"]
    sort = _EXACT if layer["output_equal"] else snr
    style = None if snr is None else f"--b:0%;--a:{_length(snr / loudest)}"
    return element(
        "td",
        snr_shown(layer),
        data_v=_sortable(sort),
        class_="bar" if style else None,
        style=style,
        title=layer["reason"] or None,
    )


def _kind(side: Document, before: Document | None, after: Document | None) -> str:
    kernel = "×".join(str(n) for n in side["kernel"])
    what = f"{side['op']} {kernel}".strip()
    if side["groups"] > 1:
        what += f", {count(side['groups'], 'group')}"
    if before is None:
        return what + ", only after"
    if after is None:
        return what + ", only before"
    if not after["quantized"]:
        return what + f", in {after['storage']}"
    return what if after["storage"] == before["storage"] else f"{what}, as {after['storage']}"


def _length(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.3g}%"


def _sortable(value: float | None) -> str | None:
    return None if value is None else f"{value:.10g}"
