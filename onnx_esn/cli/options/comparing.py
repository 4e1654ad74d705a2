"""What a comparison fails by."""

from __future__ import annotations

import click

max_divergence_option = click.option(
    "--max-divergence",
    type=float,
    metavar="X",
    help="Exit with 1 where the outputs diverge by more; needs images.",
)
