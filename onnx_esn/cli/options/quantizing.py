"""How weights are quantized."""

from __future__ import annotations

import click

from onnx_esn.cli.options.values import stacked

bits_options = stacked(
    click.option("--bits", type=int, help="Bits of every filter, 1..8."),
    click.option(
        "--target-cost", metavar="P", help="ESN'_d to reach: 10%, 1.2G; each filter its own bits."
    ),
)
method_option = click.option(
    "--method",
    type=click.Choice(["compensated", "nearest", "aciq", "qil"]),
    help="Codes that make each other's errors good (the default with images), plain rounding, "
    "analytical clipping (Banner et al.), or codes and intervals learned on the images.",
)
effort_option = click.option(
    "--effort",
    default="balanced",
    show_default=True,
    type=click.Choice(["fast", "balanced", "thorough"]),
    help="How much is tried to meet --target-cost.",
)
quantizer_option = click.option(
    "--quantizer",
    default="mid-rise",
    show_default=True,
    type=click.Choice(["mid-rise", "mid-tread"]),
    help="Without or with a level at zero; a plan says for itself.",
)
rotate_option = click.option(
    "--rotate/--no-rotate",
    default=True,
    help="With images, first bring linear tensors into the basis that few bits suit (default).",
)
requantize_option = click.option(
    "--requantize",
    is_flag=True,
    help="Quantize weights that are integers already (QDQ models) once more.",
)
