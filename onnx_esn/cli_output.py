"""Printing and failing: what the shared options of every command do.

Only this file and `cli` print and exit.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from onnx_esn.errors import InputError, OnnxEsnError, OptionError, OutputError

if TYPE_CHECKING:
    import onnx
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

        piped = not sys.stdout.isatty()
        console = Console(highlight=False, width=100 if piped else None, no_color=piped or None)
        with _printing():
            for thing in things:
                # A line stays a line in a pipe, for those who search it.
                console.print(thing, soft_wrap=isinstance(thing, str) and piped)

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
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), transient=True) as bar:
            tasks: dict[str, Any] = {}

            def show(what: str, done: int, of: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=of)
                bar.update(tasks[what], completed=done, total=of)

            yield show


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
        return f"{record.levelname.lower()}: {record.getMessage()}"


def guarded(function: F) -> Callable[..., None]:
    """A command with the shared options: errors are one line and an exit code."""

    @click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
    @click.option("--verbose", "-v", count=True, help="Say more; twice: debug.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @functools.wraps(function)
    def run(*args: Any, quiet: bool, verbose: int, as_json: bool, **kwargs: Any) -> None:
        try:
            function(Output(quiet, verbose, as_json), *args, **kwargs)
        except OnnxEsnError as error:
            _fail(str(error), 2 if isinstance(error, InputError) else 1)
        except KeyboardInterrupt:
            _fail("interrupted", 130)
        except MemoryError:
            _fail("out of memory; a smaller --batch-size needs less", 1)
        except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
            raise
        except Exception as error:
            if verbose > 1:
                raise
            _fail(f"internal error: {type(error).__name__}: {error} (-vv shows where)", 1)

    return run


def _fail(message: str, code: int) -> NoReturn:
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(code)


def open_model(model: Path, *outputs: Path | None, **read: Path | None) -> onnx.ModelProto:
    """Open the model, once it is clear that each output has a place of its own to go.

    Args:
        model: its file.
        outputs: what is written.
        read: what else is read, by what it is.
    """
    from onnx_esn.verbs import opened

    places: list[Path] = []
    for output in (o for o in outputs if o is not None):
        if output.resolve() in places:
            raise OptionError(f"{output}: named for two outputs; write to two files")
        places.append(output.resolve())
        for what, other in read.items():
            if other is not None and output.resolve() == other.resolve():
                what = what.replace("_", " ")
                raise OptionError(f"{output}: is the {what} that is read; write to another file")
        if output.is_dir():
            raise OptionError(f"{output}: is a folder; name a file to write")
        if not output.parent.is_dir():
            raise OptionError(f"{output}: its folder does not exist; create it first")
        if output.exists() and model.exists() and output.samefile(model):
            raise OptionError(f"{output}: is the input itself; write to another file")
    return opened(model, outside=True)


def check_folder(folder: Path | None) -> None:
    """Refuse a folder to write that cannot be made; nothing is made yet."""
    if folder is None:
        return
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise OptionError(f"{nearest}: is a file; name a folder to write")
    if not os.access(nearest, os.W_OK):
        raise OutputError(f"{nearest}: cannot be written; name another folder")


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
