"""The command group, and how a verb joins it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from onnx_esn import __version__
from onnx_esn.cli_output import guarded

F = TypeVar("F", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="onnx-esn")
def cli() -> None:
    """Make exported ONNX CNNs cheap: no labels, no training code, no framework."""


def command(example: str) -> Callable[[F], click.Command]:
    """A verb, with an example in its help."""

    def wrap(function: F) -> click.Command:
        name = function.__name__.rstrip("_")
        return cli.command(name=name, epilog=f"Example:  onnx-esn {example}")(guarded(function))

    return wrap
