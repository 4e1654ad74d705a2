"""A page read with the standard library alone: is it whole, and what is in it?"""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

VOID = {"br", "hr", "input", "link", "meta"}


class Page(HTMLParser):
    """Elements of a page.

    Attributes:
        elements: (tag, attributes, path of the tags around it) in order.
        text: of the page, without that of scripts and styles.
        scripts: (attributes, content).
        problems: what is not balanced.
    """

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.problems: list[str] = []
        self._open: list[str] = []
        self._words: list[str] = []
        self._cells: dict[str, list[str]] = {}
        self.feed(source)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self._open]

    @property
    def text(self) -> str:
        return " ".join("".join(self._words).split())

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.problems.append(f"<{tag}> has an attribute twice: {names}")
        self.elements.append((tag, dict(attrs), tuple(self._open)))
        if tag not in VOID and tag != "wbr":
            self._open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag in ("td", "th", "p", "li", "dd", "dt", "h1", "h2", "h3", "figure", "pre", "summary"):
            self._words.append(" ")

    def handle_endtag(self, tag):
        if not self._open or self._open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self._open[-1:]}")
        else:
            self._open.pop()

    def handle_data(self, data):
        if self._open[-1:] == ["script"]:
            about, text = self.scripts[-1]
            self.scripts[-1] = (about, text + data)
        elif self._open[-1:] != ["style"]:
            self._words.append(data)

    def attributes(self, name):
        """All values of an attribute."""
        return [about[name] for _, about, _ in self.elements if name in about]

    def tags(self):
        """How often each tag is there."""
        return Counter(tag for tag, _, _ in self.elements)
