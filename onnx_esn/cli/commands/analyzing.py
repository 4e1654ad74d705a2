"""Prune or quantize: what a model's own figures say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_esn.cli import options
from onnx_esn.cli.commands.base import command
from onnx_esn.cli.output import Output, check_folder, plotted


@command("analyze model.onnx --images photos/ -o analysis/")
@options.model_argument
@options.images_options(required=False)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder to write.")
@options.layers_options
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Draws the filters and blocks that are looked at where there are many.",
)
@options.shape_option
@options.run_options
def analyze(
    out: Output, model: Path, images: Path | None, output: Path | None, **given: Any
) -> None:
    """Prune or quantize? Say what each layer loses by either at equal compression."""
    from onnx_esn.evaluation.analysis import analyze as run
    from onnx_esn.report.analysis_plot import plot_analysis
    from onnx_esn.report.analysis_table import analysis_table
    from onnx_esn.report.tables import skipped_table

    check_folder(output)
    with out.progress() as progress:
        found = run(model, images, progress=progress, **given)
    document = found.to_document()
    out.say(analysis_table(document, everything=out.verbose))
    skipped = skipped_table(found.skipped)
    if skipped is not None:
        out.say("", skipped)
    if output is not None:
        files = [path.name for path in found.write(output)]
        files += [f"{name}.png/.svg" for name in plotted(plot_analysis, document, output)]
        out.say(f"wrote {output}: {', '.join(files)}")
    out.document(document)
