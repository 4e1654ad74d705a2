"""Two models side by side, by figures or by structure."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from onnx_esn.cli import options
from onnx_esn.cli.commands.base import command
from onnx_esn.cli.output import Output, open_model


@command("evaluate model.onnx small.onnx --images photos/ --labels labels.csv")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.images_options(required=True)
@options.labels_option
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="What the others are compared with; default: the first model.",
)
@options.shape_option
@options.run_options
def evaluate(
    out: Output,
    models: Sequence[Path],
    images: Path,
    **given: Any,
) -> None:
    """Compare models: cost, size, latency, agreement, accuracy."""
    from onnx_esn.evaluation import evaluate as run
    from onnx_esn.report.tables import comparison_table

    for model in models:
        open_model(model)
    with out.progress() as progress:
        comparison = run(
            list(models),
            images,
            progress=progress and functools.partial(progress, "evaluate"),
            **given,
        )
    out.say(comparison_table(comparison))
    out.document(comparison.to_document())


@command("compare model.onnx small.onnx --images photos/ --max-divergence 0.05")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@options.images_options(required=False)
@options.max_divergence_option
@click.option("--latency", is_flag=True, help="Time both models too; needs images.")
@options.shape_option
@options.run_options
def compare(
    out: Output,
    a: Path,
    b: Path,
    images: Path | None,
    max_divergence: float | None,
    **given: Any,
) -> None:
    """Show what differs between two models: nodes, tensors, layers, outputs."""
    from onnx_esn.evaluation.difference import check_limit
    from onnx_esn.evaluation.difference import compare as run
    from onnx_esn.report.tables import difference_table

    check_limit(max_divergence, images)
    with out.progress() as progress:
        difference = run(a, b, images, progress=progress, **given)
    out.say(difference_table(difference, everything=out.verbose))
    out.document(difference.to_document())
    if max_divergence is not None:
        difference.require(max_divergence)
