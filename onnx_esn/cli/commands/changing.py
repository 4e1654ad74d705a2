"""Verbs that change weights and keep them float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_esn.cli import options
from onnx_esn.cli.commands.base import change, command
from onnx_esn.cli.output import Output, finish, open_model


@command("prune model.onnx -o pruned.onnx --ratio 0.3")
@options.model_argument
@options.output_option
@options.prune_options
@options.selection_options
@options.granularity_option
@options.plan_options("Replay a plan, or follow a file of ratios.")
@options.layers_options
@options.images_options(required=False)
@click.option("--refit/--no-refit", default=True, help="Refit weights on the images (default).")
@options.shape_option
@options.views_option
@options.run_options
def prune(
    out: Output,
    model: Path,
    output: Path,
    plan_out: Path | None,
    **given: Any,
) -> None:
    """Remove filters and everything coupled to them."""
    from onnx_esn import verbs

    read = {name: given[name] for name in ("plan", "latency_model")}
    source = open_model(model, output, plan_out, **read)
    with out.progress() as progress:
        result = verbs.prune(source, progress=progress, **given)
    del source  # as large as the file
    finish(out, "prune", result, model, output, plan_out)


@command("recalibrate small.onnx -o better.onnx --images photos/ --reference model.onnx")
@options.model_argument
@options.output_option
@options.images_options(required=True)
@click.option(
    "--reference", type=click.Path(path_type=Path), help="The model that this one was made from."
)
@click.option(
    "--method",
    type=click.Choice(["match", "reestimate"]),
    help="Moments of the reference, or new statistics; default: match with a reference.",
)
@options.run_options
def recalibrate(out: Output, model: Path, output: Path, images: Path, **given: Any) -> None:
    """Bring per-channel means and variances back, on unlabeled images."""
    from onnx_esn import verbs

    source = open_model(model, output)
    with out.progress() as progress:
        result = verbs.recalibrate(source, images, progress=progress, **given)
    del source  # as large as the file
    finish(out, "recalibrate", result, model, output)


@command("equalize model.onnx -o even.onnx --across all")
@options.model_argument
@options.output_option
@click.option(
    "--across",
    default="homogeneous",
    show_default=True,
    type=click.Choice(["homogeneous", "all"]),
    help="Operators that scales pass; all: Clip(0, c) too, for one more operator each.",
)
@options.shape_option
def equalize(out: Output, model: Path, output: Path, **given: Any) -> None:
    """Scale channels so that few bits fit more of their weights; same outputs."""
    change(out, "equalize", model, output, **given)


@command("rotate model.onnx -o rotated.onnx")
@options.model_argument
@options.output_option
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the turns.")
@options.layers_options
@options.shape_option
def rotate(out: Output, model: Path, output: Path, **given: Any) -> None:
    """Bring linear tensors into the basis that few bits suit; same outputs."""
    change(out, "rotate", model, output, **given)
