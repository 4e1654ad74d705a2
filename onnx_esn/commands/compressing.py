"""The whole way, once or along a range of budgets."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import click

from onnx_esn import cli_options as options
from onnx_esn.cli_output import Output, check_folder, open_model, plotted
from onnx_esn.commands.base import command


@command("compress model.onnx -o small.onnx --images photos/ --target-cost 10%")
@options.model_argument
@options.output_option
@options.images_options(required=True)
@options.bits_options
@options.effort_option
@click.option(
    "--channels/--no-channels", default=True, help="Meet --target-cost by pruning too (default)."
)
@click.option(
    "--method",
    default="compensated",
    show_default=True,
    type=click.Choice(["compensated", "nearest", "aciq", "qil"]),
    help="Codes that make each other's errors good, plain rounding, analytical clipping, or codes "
    "and intervals learned on the images.",
)
@click.option(
    "--learn", is_flag=True, help="Fine-tune towards the float model's outputs; no labels."
)
@options.learn_options
@options.quantizer_option
@options.requantize_option
@options.format_options
@options.activation_options
@options.external_option
@options.prune_options
@options.layers_options
@options.labels_option
@options.evaluation_option
@click.option("--report", type=click.Path(path_type=Path), help="Write all figures as JSON.")
@options.shape_option
@options.run_options
def compress(
    out: Output,
    model: Path,
    output: Path,
    images: Path,
    report: Path | None,
    external_data: bool | None,
    **given: Any,
) -> None:
    """Prune, quantize and annotate for a budget; compare before and after."""
    from onnx_esn import pipeline, verbs
    from onnx_esn.graph.model_file import write_text
    from onnx_esn.report.summaries import result_document, summary
    from onnx_esn.report.tables import comparison_table, skipped_table

    source = open_model(model, output, report)
    with out.progress() as progress:
        result = pipeline.compress(source, images, progress=progress, **given)
    outputs = {"model": str(output)}
    document = result_document("compress", result.stages, outputs)
    document["evaluation"] = None if result.evaluation is None else result.evaluation.to_document()
    verbs.write_model(result.model, output, model, external_data=external_data)
    if report is not None:
        outputs["report"] = str(report)
        document["outputs"] = outputs
        write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", report)
    for name, stage in result.stages:
        for line in summary(name, stage):
            out.say(f"{name}: {line}")
    if result.evaluation is not None:
        out.say("", comparison_table(result.evaluation))
    skipped = skipped_table(s for _, stage in result.stages for s in stage.skipped)
    if skipped is not None:
        out.say("", skipped)
    out.say(f"wrote {output}")
    out.document(document)


@command("sweep model.onnx --images photos/ -o sweep/ --targets 4,3,2")
@options.model_argument
@options.images_options(required=True)
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="Folder to write."
)
@options.labels_option
@options.evaluation_option
@options.sweep_options
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))
@click.option("--save-models", is_flag=True, help="Write each model too.")
def sweep(out: Output, model: Path, images: Path, output: Path, **given: Any) -> None:
    """Compress to several budgets in several ways; CSV, JSON and Pareto plots. Resumable."""
    from onnx_esn.report.plots import plot_sweep
    from onnx_esn.report.tables import sweep_table
    from onnx_esn.search.sweep import sweep as run

    check_folder(output)
    open_model(model)
    with out.progress() as progress:
        show = progress and functools.partial(progress, "points")
        result = run(model, images, output, progress=show, **given)
    document = result.to_document()
    out.say(sweep_table(document))
    names = plotted(plot_sweep, document, output)
    if names:
        out.say(f"wrote {output}: {', '.join(names)} (PNG and SVG)")
    out.document(document)
