"""What a model costs: printed, or written into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_esn.cli import options
from onnx_esn.cli.commands.base import change, command
from onnx_esn.cli.output import Output, open_model


@command("inspect model.onnx --input-shape 1,3,224,224")
@options.model_argument
@click.option("--groups", is_flag=True, help="Show the channel groups; with -v, their layers.")
@click.option(
    "--ratios-out",
    type=click.Path(path_type=Path),
    help="Write a file for `prune --plan`: every layer that can be pruned, with ratio 0.",
)
@options.shape_option
def inspect(out: Output, model: Path, groups: bool, ratios_out: Path | None, **given: Any) -> None:
    """Show what each layer costs (MACs, bits, ESN) and which channels can be pruned."""
    from onnx_esn.graph.model_file import write_text
    from onnx_esn.passes.inspecting.inspection import inspect as run
    from onnx_esn.report.tables import group_table, inspection_tables

    with out.progress():
        inspection = run(open_model(model, ratios_out), **given)
    found = inspection.groups or ()
    out.say(group_table(found, members=out.verbose) if groups else inspection_tables(inspection))
    if ratios_out is not None:
        write_text(inspection.ratios().to_json(), ratios_out)
        out.say(f"wrote {ratios_out}")
    out.document(inspection.to_document())


@command("annotate model.onnx -o annotated.onnx")
@options.model_argument
@options.output_option
@options.shape_option
def annotate(out: Output, model: Path, output: Path, **given: Any) -> None:
    """Write each layer's cost into the model's metadata."""
    change(out, "annotate", model, output, **given)
