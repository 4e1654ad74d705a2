"""The points of a sweep, and who computes them."""

from __future__ import annotations

import click

from onnx_esn.cli.options.values import Numbers, stacked

sweep_options = stacked(
    click.option(
        "--targets", type=Numbers(float), help="Mean bits per MAC to reach; default: 4,3,2,1."
    ),
    click.option(
        "--methods",
        type=Numbers(str),
        help="Default: nearest,quantize-only,prune-only,prune-then-quantize,joint.",
    ),
    click.option(
        "--effort",
        default="balanced",
        show_default=True,
        type=click.Choice(["fast", "balanced", "thorough"]),
        help="How much each method tries to meet a target.",
    ),
    click.option(
        "--ratios",
        type=Numbers(float),
        help="A grid instead of methods: fractions of the prunable filters to remove "
        "(0,.25,.5,.75 if only --bits is given).",
    ),
    click.option(
        "--bits",
        type=Numbers(int),
        help="A grid instead of methods: bits of every filter "
        "(2,3,4,5,6,8 if only --ratios is given).",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler, such as tcp://10.0.0.1:8786, whose workers compute the points.",
    ),
)
