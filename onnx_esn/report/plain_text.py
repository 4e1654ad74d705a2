"""Text from files that nobody vouches for, fit for a terminal.

A node may be called after the codes that clear the screen, or that make text run backwards.
"""

from __future__ import annotations

import unicodedata

_MOST = 1500  # characters of one line
_KEPT = "\n\t"
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats, surrogates, other ends of lines


def visible(text: str) -> str:
    """The text with what a terminal would obey instead of show replaced by its escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c
        if c in _KEPT or unicodedata.category(c) not in _UNSEEN
        else c.encode("unicode_escape").decode()
        for c in text
    )


def shortened(text: str) -> str:
    """A line of bearable length: what is in the middle is left out."""
    half = _MOST // 2
    return text if len(text) <= _MOST else f"{text[:half]} … {text[-half:]}"
