"""What all tables share: frames, cells, and names cut in the middle."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from .plain_text import visible

ELLIPSIS = "…"


WIDTH = 80


class Stacked:
    """Parts below each other, in 80 columns or fewer; `_parts` makes them."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay them out."""
        width = min(options.max_width, WIDTH)
        for part in self._parts(width):
            yield from console.render(part, options.update(width=width))

    def _parts(self, width: int) -> Iterator[Table | Text]:
        raise NotImplementedError


def elide(name: str, width: int) -> str:
    """Cut a long name in the middle: the end of a node's name says most, then its beginning.

    The width is that of a terminal, where a Chinese character takes two columns; what cannot be
    seen is written as codes.
    """
    name = visible(name).replace("\n", "\\n").replace("\t", "\\t")
    if cell_len(name) <= width:
        return name
    if width <= 1:
        return ELLIPSIS[:width]
    head = (width - 1) // 3
    tail = width - 1 - head
    return _prefix(name, head) + ELLIPSIS + _prefix(name[::-1], tail)[::-1]


def _prefix(name: str, width: int) -> str:
    """As much of the beginning as has room."""
    taken = 0
    for index, character in enumerate(name):
        taken += cell_len(character)
        if taken > width:
            return name[:index]
    return name


def grid(title: str = "", *, gap: int = 2, footer: bool = False) -> Table:
    """An empty table: a rule under the headings, ``gap`` (at least 1) spaces between columns."""
    return Table(
        box=box.SIMPLE_HEAD,
        title=Text(title) if title else None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        footer_style="bold",
        show_footer=footer,
        padding=(0, gap - 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )


def cell(text: str, style: str = "") -> Text:
    """Plain text: names may hold square brackets, which rich would read as markup."""
    return Text(visible(text), style=style)


def note(text: str) -> Text:
    """A line below a table; it may be wider than the table."""
    return Text(visible(text), style="dim")


def count(number: int, noun: str) -> str:
    """``1 image``, ``2,000 images``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
