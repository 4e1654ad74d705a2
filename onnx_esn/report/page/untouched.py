"""What was left alone, and why."""

from __future__ import annotations

from onnx_esn.report.layout import count

from .markup import Child, Markup, element
from .pieces import Section, name, names, region, section
from .subject import Subject

_FEW = 3
_MOST = 2000  # names below one reason


def untouched_section(subject: Subject) -> Section:
    """The section; it says so where nothing was left alone."""
    reasons: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for stage in subject.stages:
        for entry in stage["skipped"]:
            nodes, steps = reasons.setdefault(entry["reason"], ({}, {}))
            nodes[entry["node"]] = None
            steps[stage["stage"]] = None
    notes = [element("li", visible_note) for visible_note in subject.report["notes"]]
    extra = element("ul", *notes, class_="notes") if notes else None
    if not reasons:
        told = "Nothing was left alone: every layer took part in every step."
        if any(x["after"] and not x["after"]["quantized"] for x in subject.layers):
            told = "No step left anything out that it was asked for."
        return section("untouched", "Left alone", told, extra)
    places = {node for found, _ in reasons.values() for node in found}
    rows = [_row(reason, list(n), list(steps)) for reason, (n, steps) in reasons.items()]
    told = f"{count(len(places), 'place')}, for {count(len(rows), 'reason')}."
    head = element(
        "tr", *(element("th", t, scope="col") for t in ("what it is", "why", "at which step"))
    )
    table = element(
        "table", element("thead", head), element("tbody", *rows), class_="plain reasons"
    )
    return section("untouched", "Left alone", told, region("Left alone", table), extra)


def _row(reason: str, nodes: list[str], steps: list[str]) -> Markup:
    shown: Child = names(nodes, _FEW)
    if len(nodes) > _FEW:
        listed = [element("li", name(node)) for node in nodes[:_MOST]]
        if len(nodes) > _MOST:
            listed.append(element("li", f"and {len(nodes) - _MOST:,} more"))
        shown = element("details", element("summary", shown), element("ul", *listed))
    return element(
        "tr", element("td", shown), element("td", reason), element("td", ", ".join(steps))
    )
