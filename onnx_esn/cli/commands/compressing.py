"""The whole way, once or along a range of budgets."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import click

from onnx_esn.cli import options
from onnx_esn.cli.commands.base import arguments, command
from onnx_esn.cli.output import Output, check_folder, check_report, open_model, plotted

SHARED_BY_POINTS = ("effort", "recipe", "eval_images", "labels", "batch_size")
# Options of `compress` for all points, by what they are where nothing is said.
OF_COMPRESS = {
    "only": (),
    "exclude": (),
    "quantizer": "mid-rise",
    "requantize": False,
    "rotate": True,
    "input_shape": None,
    "views": None,
    "threads": None,
}


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
@options.rotate_option
@options.format_options
@options.activation_options
@options.external_option
@options.prune_options
@options.layers_options
@options.labels_option
@options.evaluation_option
@options.report_option
@options.shape_option
@options.views_option
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

    page = report is not None and report.suffix != ".json"
    if page:
        check_report(report, model, output)
    source = open_model(model, output, None if page else report)
    with out.progress() as progress:
        result = pipeline.compress(source, images, progress=progress, **given)
    outputs = {"model": str(output)}
    document = result_document("compress", result.stages, outputs)
    document["evaluation"] = None if result.evaluation is None else result.evaluation.to_document()
    verbs.write_model(result.model, output, model, external_data=external_data)
    if report is not None:
        document["outputs"] = outputs | {"report": str(report)}
    if report is not None and page:
        from onnx_esn.report.page import compression_report, write_report

        with out.progress() as progress:
            looked = compression_report(
                source,
                result,
                arguments=arguments(),
                model=model,
                output=output,
                input_shape=given["input_shape"],
                batch_size=given["batch_size"],
                threads=given["threads"],
                progress=progress,
            )
        document["report"] = looked.to_document()
        write_report(document, report)
    elif report is not None:
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
    if report is not None:
        out.say(f"wrote {report / 'report.html' if page else report}")
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
@options.quantizer_option
@options.requantize_option
@options.rotate_option
@options.layers_options
@options.shape_option
@options.views_option
@options.run_options
@click.option("--save-models", is_flag=True, help="Write each model too.")
@options.report_option
def sweep(
    out: Output, model: Path, images: Path, output: Path, report: Path | None, **given: Any
) -> None:
    """Compress to several budgets in several ways; CSV, JSON and Pareto plots. Resumable."""
    from onnx_esn.report.plots import plot_sweep
    from onnx_esn.report.tables import sweep_table
    from onnx_esn.search.sweep import sweep as run

    check_folder(output)
    check_report(report, model)
    source = open_model(model)
    chosen = {name: given.pop(name) for name in OF_COMPRESS}
    chosen = {name: value for name, value in chosen.items() if value != OF_COMPRESS[name]}
    with out.progress() as progress:
        show = progress and functools.partial(progress, "points")
        result = run(model, images, output, progress=show, options=chosen, **given)
    document = result.to_document()
    out.say(sweep_table(document))
    names = plotted(plot_sweep, document, output)
    if names:
        out.say(f"wrote {output}: {', '.join(names)} (PNG and SVG)")
    if report is not None:
        from onnx_esn.report.page import sweep_report, write_report

        more = {name: given[name] for name in SHARED_BY_POINTS} | {"options": chosen}
        with out.progress() as progress:
            looked = sweep_report(
                source, model, images, document, arguments=arguments(), progress=progress, **more
            )
        document["report"] = looked.to_document()
        out.say(f"wrote {write_report(document, report)[0]}")
    out.document(document)
