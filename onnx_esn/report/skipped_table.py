"""What passes left alone, with the reasons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rich.console import Group, RenderableType

from .layout import cell, count, elide, grid, note

_NAMES = 2
_NAME_WIDTH = 28


class Reasoned(Protocol):
    """Anything with a node and a reason, such as `passes.base.Skipped`."""

    @property
    def node(self) -> str:
        """Name of the node, layer or tensor."""

    @property
    def reason(self) -> str:
        """Why it was left alone."""


def skipped_table(
    skipped: Iterable[Reasoned], *, title: str = "Notes", limit: int = 10
) -> RenderableType | None:
    """One row for each reason, with the nodes it holds for; None if there are none.

    Args:
        skipped: entries; the same node and reason twice count once.
        title: above the table.
        limit: rows shown; a line says how many reasons more there are.
    """
    nodes: dict[str, dict[str, None]] = {}
    for entry in skipped:
        nodes.setdefault(entry.reason, {})[entry.node] = None
    if not nodes:
        return None
    rest = list(nodes.values())[limit:]
    left = len({name for names in rest for name in names})
    table = grid(title)
    table.add_column("node", no_wrap=True)
    table.add_column("reason")
    for reason, names in list(nodes.items())[:limit]:
        table.add_row(cell(_join(list(names))), cell(reason))
    if not rest:
        return table
    return Group(
        table, note(f"… and {count(left, 'more node')}, for {count(len(rest), 'more reason')}")
    )


def _join(names: list[str]) -> str:
    shown = [elide(name, _NAME_WIDTH) for name in names[:_NAMES]]
    if len(names) > _NAMES:
        shown.append(f"and {len(names) - _NAMES:,} more")
    return "\n".join(shown)
