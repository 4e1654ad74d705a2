"""Which layers are touched."""

from __future__ import annotations

import click

from onnx_esn.cli.options.values import stacked

layers_options = stacked(
    click.option(
        "--only",
        multiple=True,
        metavar="PATTERN",
        help="The only layers that are touched (* and ?).",
    ),
    click.option(
        "--exclude", multiple=True, metavar="PATTERN", help="Layers that are left alone (* and ?)."
    ),
)
