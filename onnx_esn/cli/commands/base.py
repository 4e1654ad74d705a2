"""The command group, and how a verb joins it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from onnx_esn.cli.output import Output, finish, guarded, open_model
from onnx_esn.version import __version__

F = TypeVar("F", bound=Callable[..., Any])
ARGUMENTS = "onnx_esn.arguments"  # in the meta of a context: the words behind onnx-esn


class Recording(click.Group):
    """A group that keeps the command line as it was typed, for those who write it down."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep a copy, and parse."""
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


@click.group(
    cls=Recording,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="onnx-esn")
def cli() -> None:
    """Make exported ONNX CNNs cheap: no labels, no training code, no framework."""


def arguments() -> tuple[str, ...]:
    """The words of the command line that runs, behind ``onnx-esn``; () outside of one."""
    context = click.get_current_context(silent=True)
    found: tuple[str, ...] = () if context is None else context.meta.get(ARGUMENTS, ())
    return found


def command(example: str) -> Callable[[F], click.Command]:
    """A verb, with an example in its help."""

    def wrap(function: F) -> click.Command:
        name = function.__name__.rstrip("_")
        return cli.command(name=name, epilog=f"Example:  onnx-esn {example}")(guarded(function))

    return wrap


def change(out: Output, verb: str, model: Path, output: Path, **given: Any) -> None:
    """Run a verb that needs no more than the model, and write what it makes."""
    from onnx_esn import verbs

    with out.progress():
        source = open_model(model, output)
        result = getattr(verbs, verb)(source, **given)
    del source  # as large as the file
    finish(out, verb, result, model, output)
