"""The points of a sweep in a table, with the command that makes each of them."""

from __future__ import annotations

from onnx_esn.report import numbers
from onnx_esn.report.layout import count
from onnx_esn.report.plot_style import METRICS
from onnx_esn.search.methods import BASELINE

from .front import front_chart
from .markup import Child, Markup, element, fragment
from .pieces import Section, region, section
from .reproduce import command_block
from .series import series_of
from .subject import Document, Subject
from .sweep_points import point_name, quality_shown


def front_section(subject: Subject) -> Section | None:
    """The section; None for a compression alone."""
    if subject.sweep is None:
        return None
    sweep, choice = subject.sweep, subject.report["choice"]
    chosen = sweep["points"][choice["index"]]
    on = sum(bool(point["pareto"]) for point in sweep["points"])
    finding = fragment(
        f"{count(len(sweep['points']), 'point')}, {on:,} of them on the front: none of the others "
        "is cheaper and as good. Chosen: ",
        element("b", point_name(chosen)),
        f", {choice['rule']}.",
    )
    chart = front_chart(sweep, choice["index"]) if series_of(sweep) else None
    detail = element(
        "div", _command(subject, choice["index"]), id="point-detail", aria_live="polite"
    )
    table = region("Points of the sweep", point_table(subject))
    return section("front", "Trade-off", finding, chart, detail, table, equal_table(sweep))


def point_table(subject: Subject) -> Markup:
    """A row for each point, the failed ones with the reason."""
    assert subject.sweep is not None
    sweep, choice = subject.sweep, subject.report["choice"]["index"]
    metric = sweep["metric"]
    heads = ("point", *_labels(metric))
    base = sweep["input"]
    rows = [_row("input model", base, base, metric, "", None, None)]
    for index, point in enumerate(sweep["points"]):
        marks = [
            text for text, yes in (("front", point["pareto"]), ("chosen", index == choice)) if yes
        ]
        rows.append(
            _row(
                point_name(point),
                point,
                base,
                metric,
                ", ".join(marks),
                index,
                _details(subject, index),
            )
        )
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    return element(
        "table", element("thead", head), element("tbody", *rows), class_="plain points", id="points"
    )  # fmt: skip


def equal_table(sweep: Document) -> Markup | None:
    """What the methods cost at the same quality; None where that was not looked at."""
    levels = sweep.get("equal_quality") or ()
    if not levels:
        return None
    metric, baseline = sweep["metric"], levels[0].get("baseline", BASELINE)
    rows = []
    for level in levels:
        value = level["level"]
        bound = "≤ " if level.get("at_most") else ""
        plain = level["costs"][baseline]
        factor = "not known" if level["factor"] is None else bound + numbers.times(level["factor"])
        at = numbers.decibel(value) if metric == "snr_db" else numbers.percent(value)
        cells = (
            "outside its points" if plain is None else numbers.si(plain),
            level["best"] or "none",
        )
        shown = (element("td", text) for text in (*cells, factor))
        rows.append(element("tr", element("th", at, scope="row"), *shown))
    heads = (METRICS[metric].label.split(" with")[0], f"{baseline} costs", "best method",
             "its cost, over that")  # fmt: skip
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    table = element(
        "table",
        element("caption", f"Cost at equal quality, against {baseline}"),
        element("thead", head),
        element("tbody", *rows),
        class_="plain",
    )
    return region("Cost at equal quality", table)


def _row(
    label: str,
    figures: Document,
    base: Document,
    metric: str,
    marks: str,
    index: int | None,
    more: Markup | None,
) -> Markup:
    head: list[Child] = [label, more]
    if figures.get("status") == "failed":
        reason = element("td", "failed: ", figures["reason"], colspan=6)
        cells = [element("th", *head, scope="row"), reason]
    else:
        share = numbers.ratio(figures["esn_prime"], base["esn_prime"])
        shown = (
            quality_shown(figures, metric),
            numbers.si(figures["esn_prime"]),
            numbers.percent(share),
            numbers.si(figures["macs"]),
            numbers.size(figures["file_bytes"]),
            marks,
        )
        cells = [element("th", *head, scope="row")]
        cells += [
            element("td", text, data_label=label)
            for label, text in zip(_labels(metric), shown, strict=True)
        ]
    identity = None if index is None else f"point-{index}"
    return element("tr", *cells, id=identity, class_="chosen" if "chosen" in marks else None)


def _labels(metric: str) -> tuple[str, ...]:
    return (METRICS[metric].label.split(" with")[0], "ESN'_d", "of the input", "MACs", "file", "")


def _details(subject: Subject, index: int) -> Markup | None:
    commands = subject.report["point_commands"]
    if not commands:
        return None
    return element(
        "details",
        element("summary", "command"),
        command_block(commands[index], f"command-{index}"),
    )


def _command(subject: Subject, index: int) -> Markup | None:
    commands = subject.report["point_commands"]
    if not commands:
        return None
    assert subject.sweep is not None
    told = element("p", "To get ", element("b", point_name(subject.sweep["points"][index])), ":")
    return fragment(told, command_block(commands[index], "point-command"))
