"""The channel groups that `inspect` found: what can go, what it would save, what is locked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from onnx_esn.passes.inspecting.result import GroupInspection

from . import numbers
from .layout import cell, count, elide, grid, note

_LEAST_NAME = 16
_LONGEST_WORD = 12
_LOCKED = "locked by"
_MORE = "+2: and two more layers that share the channels. "
_LEGEND = (
    "MACs: what the model would save without the group, in its layers and in those that read them; "
    "a layer counts for both, so shares add up to more than 100 %."
)
_AT_ONCE = " at once: filters of a layer that only go together."


@dataclass(frozen=True)
class GroupTable:
    """One row a group.

    Attributes:
        groups: the groups.
        members: whether to list the layers of each.
    """

    groups: Sequence[GroupInspection]
    members: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the table out for the width there is."""
        if not self.groups:
            yield note("No channel groups: the model has no layer whose filters could go.")
            return
        shared = any(len(group.members) > 1 for group in self.groups)
        coarse = any(group.granularity > 1 for group in self.groups)
        yield _table(self.groups, self.members, coarse, options.max_width)
        yield note((_MORE if shared else "") + _LEGEND + (_AT_ONCE if coarse else ""))


def group_table(groups: Sequence[GroupInspection], *, members: bool = False) -> GroupTable:
    """A renderable for ``console.print``; with `members`, every layer has a line of its own."""
    return GroupTable(groups, members)


def groups_line(groups: Sequence[GroupInspection]) -> str:
    """``10 channel groups; 336 of 346 channels can be removed``."""
    width, free = (sum(getattr(g, name) for g in groups) for name in ("width", "prunable"))
    return f"{count(len(groups), 'channel group')}; {free:,} of {width:,} channels can be removed"


def _table(groups: Sequence[GroupInspection], members: bool, coarse: bool, width: int) -> Table:
    headings = ["width", "prunable", *(["at once"] if coarse else []), "MACs", "share"]
    rows = [_figures(group, coarse) for group in groups]
    suffixes = [f" +{n}" if (n := len(group.members) - 1) else "" for group in groups]
    locks = [_locks(group) for group in groups]
    used = 1 + sum(2 + max(map(len, column)) for column in zip(headings, *rows, strict=True))
    reason = max(map(len, locks))
    if reason:  # may wrap, names may not
        longest = max(len(g.name + more) for g, more in zip(groups, suffixes, strict=True))
        word = max(len(part) for text in locks for part in text.split())
        room = max(width - used - 2 - longest, min(word, _LONGEST_WORD))
        reason = max(len(_LOCKED), min(reason, room))
        used += 2 + reason
    name = max(width - used, _LEAST_NAME)
    table = grid(groups_line(groups))
    table.add_column("group", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    if reason:
        table.add_column(_LOCKED, width=reason)
    for group, more, row, lock in zip(groups, suffixes, rows, locks, strict=True):
        texts = [elide(group.name, name - len(more)) + more, *row, *([lock] if reason else [])]
        style = "" if group.prunable else "dim"
        table.add_row(*(cell(text, style) for text in texts))
        for member in group.members if members and more else ():
            row_name = elide(f"  {member.node}", name)
            table.add_row(cell(row_name, "dim"), cell(str(member.filters), "dim"))
    return table


def _figures(group: GroupInspection, coarse: bool) -> list[str]:
    return [
        str(group.width),
        str(group.prunable),
        *([str(group.granularity)] if coarse else []),
        numbers.si(group.macs),
        numbers.percent(group.share).replace(" ", ""),
    ]


def _locks(group: GroupInspection) -> str:
    """The commonest reason, and how many channels it holds where others can go."""
    if not group.locks:
        return group.reason
    first = group.locks[0]
    text = first.reason if not group.prunable else f"{first.classes} of them: {first.reason}"
    others = len(group.locks) - 1
    return f"{text}, and {count(others, 'more reason')}" if others else text
