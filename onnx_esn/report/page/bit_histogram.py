"""How many filters have how many bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from onnx_esn.report import numbers
from onnx_esn.report.layout import count

from .markup import element
from .pieces import Section, section, unseen
from .subject import Document, Subject

REMOVED = "removed"
_FLOAT = "float"


def bit_section(subject: Subject) -> Section | None:
    """The section; None without layers."""
    filters, macs = tally(subject.layers)
    if not filters:
        return None
    total, weights = sum(filters.values()), sum(macs.values())
    largest = max(filters.values())
    columns = []
    for width in _columns(filters):
        number, share = filters[width], numbers.ratio(macs[width], weights)
        what = "removed" if width == REMOVED else f"at {_said(width)}"
        said = f"{count(number, 'filter')} {what}"
        shown = numbers.percent(share) if share and width != REMOVED else ""
        style = f"height:{100 * number / largest:.3g}%"
        bar = element("i", style=style, class_=_kind(width)) if number else None
        columns.append(
            element(
                "li",
                element("span", f"{number:,}", class_="n", aria_hidden="true"),
                element("span", bar, class_="column", aria_hidden="true"),
                element("span", width, class_="w", aria_hidden="true"),
                element("span", shown, class_="share", aria_hidden="true"),
                unseen(said + (f", {shown} of the MACs" if shown else "")),
                title=f"{said}: {numbers.percent(number / total)} of the filters"
                + (f", {shown} of the MACs" if shown else ""),
            )
        )
    commonest = max((w for w in filters if w != REMOVED), key=lambda w: filters[w], default=REMOVED)
    finding = f"{numbers.percent(filters[commonest] / total)} of {count(total, 'filter')} "
    finding += "were removed." if commonest == REMOVED else f"are at {_said(commonest)}."
    note = element(
        "p", "Number of filters, bits of each, and their share of the MACs.", class_="note"
    )
    return section(
        "bits", "Bits", finding, element("ul", *columns, class_="hist", id="bit-histogram"), note
    )


def tally(layers: Sequence[Document]) -> tuple[Mapping[str, int], Mapping[str, float]]:
    """Filters and MACs by bits ("float": off the grid, "removed": gone) of the model after."""
    filters: Counter[str] = Counter()
    macs: Counter[str] = Counter()
    for layer in layers:
        before, after = layer["before"], layer["after"]
        if after is None:
            continue
        for bits, number in after["bits"].items():
            known = after["quantized"] and float(bits) <= 8
            width = bits if known else _FLOAT
            filters[width] += number
            if after["macs"]:
                macs[width] += after["macs"] * number / after["filters"]
        if before is not None and before["filters"] > after["filters"]:
            filters[REMOVED] += before["filters"] - after["filters"]
    return filters, macs


def _columns(filters: Mapping[str, int]) -> list[str]:
    """From 1 bit to the most there are, and what else there is."""
    widths = [int(w) for w in filters if w.isdigit()]
    columns = [REMOVED] if REMOVED in filters else []
    columns += [str(w) for w in range(min(1, *widths), max(widths) + 1)] if widths else []
    return columns + ([_FLOAT] if _FLOAT in filters else [])


def _said(width: str) -> str:
    return "float" if width == _FLOAT else count(int(width), "bit")


def _kind(width: str) -> str:
    return {REMOVED: "gone", _FLOAT: "float"}.get(width, "a")
