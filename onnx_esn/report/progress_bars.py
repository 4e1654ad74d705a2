"""How far the work is, on a terminal: what takes over a second says so, with the time left."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from .layout import cell, elide

SECOND = 1.0
_NAME = 24
_LONG = 2  # a total up to this is a step of its own, not a count


class _Name(ProgressColumn):
    """What is being done."""

    def render(self, task: Task) -> Text:
        return cell(elide(task.description, _NAME))


class _Count(ProgressColumn):
    """How many of how many; nothing of a single step."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text()
        return cell(f"{task.completed:,.0f}/{task.total:,.0f}")


class _Left(ProgressColumn):
    """Time left where it can be told, else the time that has passed."""

    def __init__(self) -> None:
        super().__init__()
        self._left = TimeRemainingColumn(compact=True)
        self._past = TimeElapsedColumn()

    def render(self, task: Task) -> Text:
        if task.total is None or task.time_remaining is None:
            return Text.assemble(self._past.render(task), " so far")
        return Text.assemble(self._left.render(task), " left")


class ProgressBars(Progress):
    """A line for each thing that is going on; none for what is over, none in the first second.

    Between two of them, and where nobody counts, there is a line that says that work goes on.
    """

    def __init__(self, console: Console) -> None:
        self._began = time.monotonic()
        self._going: dict[str, TaskID] = {}
        columns = (SpinnerColumn(), _Name(), BarColumn(20), _Count(), _Left())
        super().__init__(*columns, console=console, transient=True)
        self.add_task("working", total=None)

    def show(self, what: str, done: int, of: int) -> None:
        """Say how much of something is done."""
        number = of if of >= _LONG else None
        if what not in self._going:
            self._going[what] = self.add_task(what, total=number)
        task = self._going[what]
        if done >= of:  # should there be more of it later, it begins anew
            self.remove_task(self._going.pop(what))
        else:
            self.update(task, total=number, completed=done)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The lines; rich asks for them ten times a second."""
        if time.monotonic() - self._began < SECOND:
            return
        tasks = self.tasks
        yield self.make_tasks_table(tasks[1:] or tasks)
