"""What is pruned, by what, and how far."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_esn.cli.options.values import stacked

prune_options = stacked(
    click.option("--ratio", type=float, help="Fraction of the prunable filters to remove."),
    click.option("--target-macs", metavar="P", help="MACs to reach: 50%, 300M."),
    click.option(
        "--criterion",
        default="signal-norm",
        show_default=True,
        help="What ranks filters: signal-norm, effective-norm, output-variance, l1-norm, bn-scale, "
        "or reconstruction (what the outputs lose; needs images).",
    ),
    click.option(
        "--scope",
        type=click.Choice(["global", "layer"]),
        help="All filters ranked together, or the same share of every group (the default, but for "
        "--criterion reconstruction --target-macs).",
    ),
    click.option(
        "--round-to",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Widths of layers that lose filters become multiples of this.",
    ),
    click.option(
        "--min-width",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Filters that every layer keeps.",
    ),
    click.option("--exact", is_flag=True, help="First remove what changes nothing."),
    click.option(
        "--absorb",
        default="mean",
        show_default=True,
        type=click.Choice(["none", "constant", "mean"]),
        help="What of removed channels goes into their consumers' biases.",
    ),
)
selection_options = stacked(
    click.option(
        "--selection",
        default="ranked",
        show_default=True,
        type=click.Choice(["ranked", "qcqp"]),
        help="Filters by criterion and scope, or those worth most together (quadratic program) "
        "within all targets.",
    ),
    click.option("--target-params", metavar="P", help="Weights to reach (qcqp): 50%, 1.2M."),
    click.option(
        "--target-memory",
        metavar="P",
        help="Activation elements, all layers added up, to reach (qcqp): 50%, 2M.",
    ),
    click.option(
        "--target-latency", metavar="T", help="Modelled time to reach (qcqp): 50%, 3.5ms."
    ),
    click.option(
        "--latency-model",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="What 'onnx-esn profile' wrote, for --target-latency.",
    ),
    click.option(
        "--solver-time",
        default=60.0,
        show_default=True,
        type=click.FloatRange(0, min_open=True),
        metavar="S",
        help="Seconds that the search may take (qcqp).",
    ),
)
granularity_option = click.option(
    "--granularity",
    default="channel",
    show_default=True,
    type=click.Choice(["channel", "spatial"]),
    help="Whole filters, or positions of kernels: zeroed (--ratio), or smaller kernels "
    "(--target-macs).",
)
