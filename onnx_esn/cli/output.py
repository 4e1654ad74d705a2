"""Printing and failing: what the shared options of every command do.

Nothing outside of this package prints or exits.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from onnx_esn.cli.places import check_folder as check_folder
from onnx_esn.cli.places import open_model as open_model
from onnx_esn.cli.signals import may_speak, received
from onnx_esn.errors import InputError, OnnxEsnError, OptionError, OutputError
from onnx_esn.report.plain_text import shortened, visible
from onnx_esn.targets import release_kept

if TYPE_CHECKING:
    from rich.console import RenderableType

    from onnx_esn.passes.base import PassResult

F = TypeVar("F", bound=Callable[..., Any])
Progress = Callable[[str, int, int], None]


def plotted(
    draw: Callable[[Any, Path], Iterable[Path]], document: object, folder: Path
) -> list[str]:
    """Names of the plots that were drawn, without ending; none, with a warning, if it cannot be."""
    try:
        return list(dict.fromkeys(path.stem for path in draw(document, folder)))
    except OptionError as error:
        logging.getLogger("onnx_esn").warning("no plot: %s", error)
        return []


class Output:
    """What the shared options say about printing."""

    def __init__(self, quiet: bool, verbose: int, as_json: bool) -> None:
        self.quiet, self.verbose, self.as_json = quiet, verbose > 0, as_json
        level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
        if verbose > 1:
            level = logging.DEBUG
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_LevelFirst())
        root = logging.getLogger("onnx_esn")
        root.handlers[:] = [handler]
        root.setLevel(level)
        root.propagate = False

    def say(self, *things: RenderableType) -> None:
        """Print for people, on stdout; nothing with --json or --quiet."""
        if self.quiet or self.as_json or sys.stdout is None:
            return
        from rich.console import Console

        from onnx_esn.report.visible import Visible

        piped = not sys.stdout.isatty()
        console = Console(
            highlight=False,
            markup=False,  # brackets and colons in a name are brackets and colons
            emoji=False,
            width=100 if piped else None,
            no_color=piped or None,
        )
        with _printing():
            for thing in things:
                # A line stays a line in a pipe, for those who search it.
                shown = visible(thing) if isinstance(thing, str) else Visible(thing)
                console.print(shown, soft_wrap=isinstance(thing, str) and piped)

    def document(self, document: object) -> None:
        """Print the one JSON document, with --json."""
        if self.as_json:
            with _printing():
                click.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))

    @contextmanager
    def progress(self) -> Iterator[Progress | None]:
        """A progress bar on a terminal's stderr; silent everywhere else."""
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console

        from onnx_esn.report.progress_bars import ProgressBars

        with ProgressBars(Console(stderr=True)) as bars:
            yield bars.show


@contextmanager
def _printing() -> Iterator[None]:
    """What the disk behind stdout has no room for is one line too; a closed pipe is click's."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror or error}") from error


class _LevelFirst(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {shortened(visible(record.getMessage()))}"


def guarded(function: F) -> Callable[..., None]:
    """A command with the shared options: errors are one line and an exit code."""

    @click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
    @click.option("--verbose", "-v", count=True, help="Say more; twice: debug.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @functools.wraps(function)
    def run(*args: Any, quiet: bool, verbose: int, as_json: bool, **kwargs: Any) -> None:
        import numpy as np

        try:
            # Numbers too large for their type are found where results are checked, and named there.
            with np.errstate(over="ignore", invalid="ignore"):
                function(Output(quiet, verbose, as_json), *args, **kwargs)
        except BaseException as error:
            said = received() or _explained(error, verbose > 1)
            if said is None:
                raise
            _fail(*said)
        finally:
            release_kept()

    return run


def _explained(error: BaseException, with_traceback: bool) -> tuple[str, int] | None:
    """One line and an exit code; None for what is to be raised as it is."""
    if isinstance(error, OnnxEsnError):
        return str(error), 2 if isinstance(error, InputError) else 1
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, MemoryError):
        return "out of memory; a smaller --batch-size needs less", 1
    own = (click.exceptions.Exit, click.ClickException, BrokenPipeError)
    if with_traceback or isinstance(error, own) or not isinstance(error, Exception):
        return None
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror} (-vv shows where)", 1
    return f"internal error: {type(error).__name__}: {error} (-vv shows where)", 1


def _fail(message: str, code: int) -> NoReturn:
    if may_speak():
        click.echo("error: " + shortened(visible(" ".join(message.split()))), err=True)
    sys.exit(code)


def check_report(folder: Path | None, *models: Path) -> None:
    """Refuse a folder for a report that cannot be made, or that a model is in the way of."""
    check_folder(folder)
    if folder is None:
        return
    taken = [(folder / name).resolve() for name in ("", "report.html", "report.json")]
    for model in models:
        if model.resolve() in taken:
            raise OptionError(f"{folder}: the report would be in the way of {model}; name another")


def finish(
    out: Output,
    verb: str,
    result: PassResult,
    source: Path,
    output: Path,
    plan_out: Path | None = None,
    external_data: bool | None = None,
) -> None:
    """Write the model and the plan, then say what happened."""
    from onnx_esn.graph.model_file import write_text
    from onnx_esn.report.summaries import result_document, summary
    from onnx_esn.report.tables import skipped_table
    from onnx_esn.verbs import write_model

    outputs = {"model": str(output)}
    write_model(result.model, output, source, external_data=external_data)
    if plan_out is not None and result.plan is not None:
        write_text(result.plan.to_json(), plan_out)
        outputs["plan"] = str(plan_out)
    out.say(*summary(verb, result))
    skipped = skipped_table(result.skipped)
    if skipped is not None:
        out.say("", skipped)
    out.say("wrote " + ", ".join(outputs.values()))
    out.document(result_document(verb, [(verb, result)], outputs))
