"""How long a model's layers take at other widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_esn.cli import options
from onnx_esn.cli.commands.base import command
from onnx_esn.cli.output import Output, open_model


@command("profile model.onnx -o latency.json")
@options.model_argument
@options.output_option
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="onnxruntime threads; as many as the model will run with.",
)
@click.option(
    "--points",
    default=12,
    show_default=True,
    type=click.IntRange(4),
    help="Widths of each layer that are timed.",
)
@click.option(
    "--repeat", default=40, show_default=True, type=click.IntRange(1), help="Runs of each."
)
@click.option(
    "--round-to",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Time multiples of this; give `prune --round-to` the same.",
)
@click.option(
    "--batch-size",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Samples at a time.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Says which widths are timed.",
)
@options.shape_option
def profile(out: Output, model: Path, output: Path, **given: Any) -> None:
    """Time each layer over its widths, for `prune --latency-model`."""
    from onnx_esn.graph.model_file import write_text
    from onnx_esn.passes.profiling.profile import profile as run
    from onnx_esn.report.profile_table import profile_table

    source = open_model(model, output)
    with out.progress() as progress:
        found = run(source, progress=progress, **given)
    write_text(found.model.to_json(), output)
    out.say(profile_table(found), f"wrote {output}")
    out.document({**found.to_document(), "latency_model": str(output)})
