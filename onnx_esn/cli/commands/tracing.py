"""What a training did, from its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from onnx_esn.cli.commands.base import command
from onnx_esn.cli.output import Output, check_folder, plotted
from onnx_esn.errors import OutputError


@command("trace checkpoints/ --accuracy accuracy.csv -o traced/")
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--iterations",
    type=click.Path(path_type=Path),
    help="CSV file,epoch,iteration; default: the names, as in epoch_003_iter_040.npz.",
)
@click.option("--accuracy", type=click.Path(path_type=Path), help="CSV epoch,accuracy.")
@click.option(
    "--epoch",
    type=click.IntRange(0),
    help="The one whose ESN_a the policy brings back; default: the best, else the last.",
)
@click.option(
    "--quantizer",
    default="mid-rise",
    show_default=True,
    type=click.Choice(["mid-rise", "mid-tread"]),
    help="What the policy is for.",
)
def trace(out: Output, checkpoints: tuple[Path, ...], output: Path | None, **given: Any) -> None:
    """Show how a training moved the weights, and the bits that match it."""
    from onnx_esn.evaluation.trajectory import trace as run
    from onnx_esn.graph.model_file import write_text
    from onnx_esn.report.trajectory_plot import plot_trace
    from onnx_esn.report.trajectory_table import trace_table

    check_folder(output)
    with out.progress() as progress:
        found = run(checkpoints, progress=progress, **given)
    document = found.to_document()
    out.say(trace_table(document))
    if output is not None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{output}: cannot be made ({error.strerror or error})") from error
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_text(text, output / "trace.json")
        write_text(found.to_csv(), output / "trace.csv")
        out.say(f"wrote {output}: trace.json, trace.csv")
        names = plotted(plot_trace, document, output)
        if names:
            out.say(f"wrote {output}: {', '.join(names)} (PNG and SVG)")
    out.document(document)
