"""Small parts that several sections are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from onnx_esn.report.layout import elide

from .markup import Child, Markup, element, escape, fragment, visible

_NAME = 72
_TITLE = 300
# On what is not the same from run to run.
MEASURED = {"data_measured": True}


class Section(NamedTuple):
    """A part of the page that the list of contents names."""

    identity: str
    title: str
    markup: Markup


def section(identity: str, title: str, finding: Child, *children: Child) -> Section:
    """A section with a heading, and in a sentence what it shows."""
    heading = f"{identity}-title"
    markup = element(
        "section",
        element("h2", title, id=heading),
        None if finding is None else element("p", finding, class_="finding"),
        *children,
        id=identity,
        aria_labelledby=heading,
    )
    return Section(identity, title, markup)


def region(label: str, *children: Child, kind: str = "") -> Markup:
    """What scrolls in itself where the window is narrow, by keyboard too."""
    return element(
        "div",
        *children,
        class_=f"scroll {kind}".strip(),
        tabindex=0,
        role="region",
        aria_label=label,
    )


def name(text: str, width: int = _NAME) -> Markup:
    """A name from a model, kept apart from the direction of the text around it."""
    shown = visible(text)
    whole = None if len(shown) <= width else elide(shown, _TITLE)
    parts = escape(elide(shown, width)).replace("/", "/<wbr>")
    return element("bdi", Markup(parts), class_="name", title=whole)


def names(texts: Sequence[str], most: int = 3) -> Markup:
    """A few names, and how many more there are."""
    shown = [name(text, 48) for text in texts[:most]]
    parts: list[Child] = []
    for index, part in enumerate(shown):
        last = index == len(shown) - 1 and len(texts) <= most
        parts += ["" if not index else " and " if last else ", ", part]
    if len(texts) > most:
        parts.append(f" and {len(texts) - most:,} more")
    return fragment(*parts)


def change(before: str, after: str) -> Markup:
    """``16 → 12``; one of them where both are the same."""
    if before == after:
        return escape(after)
    return fragment(element("span", f"{before} → ", class_="old"), element("b", after))


def bars(before: float | None, after: float | None) -> Markup:
    """Two bars for shares of the same length, 0 … 1; the numbers stand beside them as text."""
    drawn = [
        element("i", class_=kind, style=f"width:{100 * min(max(share, 0.0), 1.0):.3g}%")
        for kind, share in (("b", before), ("a", after))
        if share is not None
    ]
    return element("span", *drawn, class_="bars", aria_hidden="true")


def unseen(text: str) -> Markup:
    """Text for those who listen to the page only."""
    return element("span", text, class_="unseen")


def legend(*entries: tuple[str, str]) -> Markup:
    """Swatches and what they stand for; each swatch is a class of the style sheet."""
    items = [
        element("li", element("i", class_=f"swatch {kind}", aria_hidden="true"), text)
        for kind, text in entries
    ]
    return element("ul", *items, class_="legend")
