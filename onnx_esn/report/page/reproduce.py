"""How to get the same again: the command, the files, the version."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_esn.report import numbers
from onnx_esn.report.layout import count

from .markup import Child, Markup, element, fragment
from .pieces import Section, name, section
from .subject import Document, Subject

_CONTINUED = Markup(" \\\n    ")


def reproduce_section(subject: Subject) -> Section:
    """The section."""
    report = subject.report
    if report["command"]:
        finding = "The same command makes the same bytes, in the folder it was run in."
        parts = [command_block(report["command"], "command")]
    else:
        finding = "The model was compressed from Python; there is no command to repeat."
        parts = []
    rows = [_file("input", report["model"]), _file("output", report["output"])]
    if subject.evaluation is not None:
        held = subject.evaluation
        told = fragment(name(held["images"]), f", {count(held['samples'], 'image')}")
        rows.append(_line("judged on", told))
    rows.append(_line("made by", f"onnx-esn {report['version']}"))
    facts = element("dl", *(row for row in rows if row is not None), class_="facts")
    note = element(
        "p",
        "All figures but latency are the same on every run. Latency is measured, on the machine "
        "that made this page.",
        class_="note",
    )
    return section("reproduce", "Reproduce", finding, *parts, facts, note)


def command_block(words: Sequence[str], identity: str) -> Markup:
    """A command, an option a line, as it can be pasted into a shell."""
    return element(
        "div",
        element("pre", element("code", *broken(words), id=identity), tabindex=0),
        class_="command",
    )


def broken(words: Sequence[str]) -> list[Child]:
    """The words after each other, with the line continued before each option."""
    parts: list[Child] = []
    for index, word in enumerate(words):
        if index > 1 and word.startswith("-") and not _is_number(word):
            parts.append(_CONTINUED)
        elif index:
            parts.append(" ")
        parts.append(word)
    return parts


def _is_number(word: str) -> bool:
    return word[1:2].isdigit() or word[1:2] == "."


def _file(label: str, file: Document | None) -> Markup | None:
    if file is None:
        return None
    told = fragment(
        name(file["name"]),
        f", {numbers.size(file['bytes'])}",
        element("span", "SHA-256 ", element("code", file["sha256"]), class_="hash"),
    )
    return _line(label, told)


def _line(label: str, told: Markup | str) -> Markup:
    return element("div", element("dt", label), element("dd", told))
