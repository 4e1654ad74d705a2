"""The model that is read, and the files that are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from onnx_esn.cli.options.values import F, stacked

model_argument = click.argument("model", type=click.Path(path_type=Path))
output_option = click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="File to write."
)
external_option = click.option(
    "--external-data/--no-external-data",
    default=None,
    help="Weights in a file of their own, OUTPUT.HASH.data; default: as the input, and above 2 GB.",
)
report_option = click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write report.html, one page with all figures, and report.json.",
)


def plan_options(what: str) -> Callable[[F], F]:
    """--plan and --plan-out."""
    return stacked(
        click.option("--plan", type=click.Path(path_type=Path), help=what),
        click.option(
            "--plan-out", type=click.Path(path_type=Path), help="Write the decision as JSON."
        ),
    )
