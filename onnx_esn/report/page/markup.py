"""HTML as values: what is text is escaped, what is `Markup` was made here.

Every name in a report comes from a model that somebody else wrote. So there is no template that
text could be pasted into: an element is a call, its children are escaped unless they are elements
themselves, and characters that would not be seen as what they are (control characters, those that
turn the direction of writing, lone surrogates) are written as codes.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from typing import Any

from onnx_esn.report.plain_text import visible as shown

_VOID = {"br", "hr", "input", "link", "meta"}
_NAME = re.compile(r"[a-z][a-z0-9-]*", re.IGNORECASE)


class Markup(str):
    """HTML, safe to put into a page as it is."""

    __slots__ = ()


Child = str | Markup | None | Iterable["Child"]


def visible(text: str) -> str:
    """The text on one line, with codes such as ``\\u202e`` for what cannot be seen."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


def escape(text: str) -> Markup:
    """Text for a page, between tags or within quotes."""
    return Markup(html.escape(visible(text), quote=True))


def element(tag: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """An element; text among its children and in its attributes is escaped.

    Args:
        tag: its name.
        children: elements and text, nested as they come; None is nothing.
        attributes: ``class_`` is ``class``, ``aria_label`` is ``aria-label``; True is an attribute
            without a value, False and None leave it out.

    Raises:
        ValueError: a name that cannot be one, or children in an element that has none.
    """
    opened = [_named(tag)]
    for name, value in attributes.items():
        key = _named(name.removesuffix("_").replace("_", "-"))
        if value is True:
            opened.append(key)
        elif value is not None and value is not False:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            opened.append(f'{key}="{escape(text)}"')
    start = f"<{' '.join(opened)}>"
    if tag in _VOID:
        if children:
            raise ValueError(f"{tag} has no children")
        return Markup(start)
    return Markup(f"{start}{fragment(*children)}</{tag}>")


def fragment(*children: Child) -> Markup:
    """Elements and text after each other."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(escape(child))
        elif child is not None:
            parts.append(fragment(*child))
    return Markup("".join(parts))


def island(identity: str, data: Any) -> Markup:
    """Data for the script of the page, as JSON that no text in it can end."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{escape(identity)}">{text}</script>')


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an element or attribute")
    return name
