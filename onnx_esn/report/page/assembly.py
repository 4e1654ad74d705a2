"""The page: head, sections in the order of an engineer's questions, and the data itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from .bit_histogram import bit_section
from .headline import headline
from .layer_table import layer_section
from .markup import Markup, element, island, visible
from .noise import noise_section
from .pieces import Section, name
from .points import front_section
from .reproduce import reproduce_section
from .steps import steps_section
from .strips import strip_section
from .subject import Subject, subject_of
from .untouched import untouched_section

# What did it cost, what did I gain; which trade-off; where; what was not touched; how; again.
SECTIONS = (
    headline,
    front_section,
    layer_section,
    bit_section,
    noise_section,
    strip_section,
    untouched_section,
    steps_section,
    reproduce_section,
)
# Layers up to which the page carries its data, to be saved from it; report.json has them always.
MOST_IN_PAGE = 300
_THEMES = (("auto", "Auto"), ("light", "Light"), ("dark", "Dark"))


def report_page(document: Mapping[str, Any]) -> str:
    """The HTML of a report; the same document gives the same text.

    Args:
        document: what ``compress`` or ``sweep`` prints with ``--json --report``.

    Raises:
        OptionError: there is no report in it.
    """
    subject = subject_of(document)
    sections = [part for part in (make(subject) for make in SECTIONS) if part is not None]
    style, script = _asset("style.css"), _asset("script.js")
    title = f"{visible(subject.name)}: {_kind(subject)}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content=f"onnx-esn {subject.report['version']}"),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        Markup(f"<style>{style}</style>"),
    )
    body = element(
        "body",
        element("a", "Skip to the figures", href="#main", class_="skip"),
        _header(subject, sections),
        element("main", *(part.markup for part in sections), id="main"),
        element("footer", f"onnx-esn {subject.report['version']}"),
        island("data", document) if len(subject.layers) <= MOST_IN_PAGE else None,
        Markup(f"<script>{script}</script>"),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _header(subject: Subject, sections: list[Section]) -> Markup:
    links = [element("a", part.title, href=f"#{part.identity}") for part in sections]
    themes = [
        element(
            "label",
            element("input", type="radio", name="theme", id=f"theme-{key}", checked=key == "auto"),
            element("span", label),
        )
        for key, label in _THEMES
    ]
    switch = element("fieldset", element("legend", "Colours", class_="unseen"), *themes, id="theme")
    return element(
        "header",
        element(
            "div",
            element("p", _kind(subject), class_="kind"),
            element("h1", name(subject.name)),
            class_="title",
        ),
        switch,
        element("nav", *links, aria_label="Sections"),
    )


def _kind(subject: Subject) -> str:
    return "compression report" if subject.sweep is None else "sweep report"


def _policy(script: str) -> str:
    """Nothing from anywhere, and no script but ours."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{rule} {value}" for rule, value in rules.items())


def _asset(file: str) -> str:
    return (resources.files(__package__) / "assets" / file).read_text(encoding="utf-8")
