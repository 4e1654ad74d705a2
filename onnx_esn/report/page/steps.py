"""What was done, step by step, and what was tried."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_esn.report import numbers
from onnx_esn.report.layout import count
from onnx_esn.report.summaries import said_of, stage_lines, was_kept

from .markup import Markup, element
from .pieces import Section, bars, region, section
from .subject import Document, Subject


def steps_section(subject: Subject) -> Section:
    """The section."""
    items = []
    for stage in subject.stages:
        lines = stage_lines(stage["stage"], stage["details"], trials=False)
        items.append(
            element(
                "li",
                element("b", stage["stage"]),
                *(element("p", line) for line in lines),
                trial_table(stage["details"].get("trials") or ()),
            )
        )
    finding = f"{count(len(items), 'step')}, in this order."
    return section("steps", "Steps", finding, element("ol", *items, class_="steps"))


def trial_table(trials: Sequence[Document]) -> Markup | None:
    """What was tried to meet a budget, the best first; None where there was no choice."""
    if len(trials) < 2:
        return None
    ranked = sorted(trials, key=lambda t: t["divergence"])
    largest = ranked[-1]["divergence"] or 1.0
    rows = []
    for rank, trial in enumerate(ranked):
        macs = "all channels" if trial["macs"] is None else f"{numbers.si(trial['macs'])} MACs"
        kept = was_kept(trial, rank)
        mark = element("b", " ◂ kept") if kept else said_of(trial, rank) or None
        rows.append(
            element(
                "tr",
                element("th", macs, mark, scope="row"),
                element("td", numbers.si(trial["cost"])),
                element(
                    "td",
                    f"{trial['divergence']:.4g}",
                    bars(None, trial["divergence"] / largest),
                ),
            )
        )
    heads = ("tried", "ESN'_d", "divergence, held-out images")
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    table = element("table", element("thead", head), element("tbody", *rows), class_="plain trials")
    return region("What was tried", table)
