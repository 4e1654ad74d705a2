"""How to learn."""

from __future__ import annotations

import click

from onnx_esn.cli.options.values import stacked

learn_options = stacked(
    click.option(
        "--epochs",
        type=click.IntRange(1),
        help="Passes over the images to learn from (default 20).",
    ),
    click.option(
        "--start-bits",
        type=click.IntRange(2, 8),
        help="Begin to learn with so many bits, and take them away one by one.",
    ),
    click.option("--seed", default=0, show_default=True, help="Order and variation of images."),
)
