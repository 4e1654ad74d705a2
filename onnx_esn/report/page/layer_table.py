"""Every layer before and after: where the cost was, and where it is now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx_esn.report import numbers
from onnx_esn.report.layout import count

from .layer_cells import Totals, figure, layer_row, share_of
from .markup import Child, Markup, element, fragment
from .pieces import Section, change, legend, names, region, section
from .subject import Document, Subject

_LONG = 100_000  # numbers that are too long to be written out
_TALL = 24  # rows from which the table scrolls in itself
_HEADINGS = ("layer", "filters", "MACs", "bits", "ESN'_d", "output SNR")


def layer_section(subject: Subject) -> Section:
    """The section, or a line where the model has no layers."""
    layers = subject.layers
    if not layers:
        return section("layers", "Layers", "The model has no Conv, Gemm or MatMul with weights.")
    table = layer_table(layers)
    body = region("Layers", table, kind="tall" if len(layers) > _TALL else "")
    marks = legend(
        ("b", "share of the model before"),
        ("a", "share of the model after"),
        ("range", "fewest to most bits of a filter, of 8"),
    )
    return section("layers", "Layers", _finding(layers), marks, body)


def layer_table(layers: Sequence[Document]) -> Markup:
    """The table; a cell's ``data-v`` is what it is sorted by."""
    totals: Totals = {
        (side, key): sum(figure(x, side, key) or 0.0 for x in layers)
        for side in ("before", "after")
        for key in ("macs", "esn_prime")
    }
    shares = [
        share_of(x, side, key, totals)
        for x in layers
        for side, key in totals
    ]  # fmt: skip
    largest = max((s for s in shares if s is not None), default=0.0) or 1.0
    loudest = max((x["output_snr_db"] or 0.0 for x in layers), default=0.0) or 1.0
    rows = [layer_row(i, x, totals, largest, loudest) for i, x in enumerate(layers)]
    head = element("tr", *(element("th", text, scope="col") for text in _HEADINGS))
    foot = element(
        "tr",
        element("th", "all", scope="row"),
        element("td", _sum(layers, "filters", _whole)),
        element("td", _sum(layers, "macs", numbers.si)),
        element("td", _mean_bits(totals)),
        element("td", _sum(layers, "esn_prime", numbers.si)),
        element("td"),
    )
    return element(
        "table",
        element("thead", head),
        element("tbody", *rows),
        element("tfoot", foot),
        class_="layers",
        id="layer-table",
    )


def _finding(layers: Sequence[Document]) -> Child:
    cost = sorted(
        ((figure(x, "after", "esn_prime") or 0.0, -i) for i, x in enumerate(layers)), reverse=True
    )
    total = sum(c for c, _ in cost)
    if not total:
        return f"{count(len(layers), 'layer')}."
    reached, most = 0.0, []
    for value, index in cost:
        reached += value
        most.append(layers[-index]["name"])
        if reached >= total / 2:
            break
    told = f"Of {count(len(layers), 'layer')}, {len(most):,} "
    told += "has" if len(most) == 1 else "have"
    return fragment(f"{told} half of the cost that is left: ", names(most), ".")


def _sum(layers: Sequence[Document], key: str, show: Any) -> Markup:
    texts = [show(sum(figure(x, s, key) or 0 for x in layers)) for s in ("before", "after")]
    return change(texts[0], texts[1])


def _whole(value: float) -> str:
    return f"{value:,}" if value < _LONG else numbers.si(value)


def _mean_bits(totals: Totals) -> Markup:
    texts = [
        numbers.bits(numbers.ratio(totals[s, "esn_prime"], totals[s, "macs"]))
        for s in ("before", "after")
    ]
    return change(texts[0], texts[1])
