"""The command line: one command a verb, no logic of its own.

Everything heavy is imported inside the commands, so that `--help` answers at once. `cli_options`
has the options, `cli_output` prints and exits.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from onnx_esn import __version__
from onnx_esn import cli_options as options
from onnx_esn.cli_output import Output, finish, guarded, open_model
from onnx_esn.errors import OptionError

F = TypeVar("F", bound=Callable[..., Any])


def command(example: str) -> Callable[[F], click.Command]:
    """A verb, with an example in its help."""

    def wrap(function: F) -> click.Command:
        name = function.__name__.rstrip("_")
        return cli.command(name=name, epilog=f"Example:  onnx-esn {example}")(guarded(function))

    return wrap


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="onnx-esn")
def cli() -> None:
    """Make exported ONNX CNNs cheap: no labels, no training code, no framework."""


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
    from onnx_esn.passes.inspection import inspect as run
    from onnx_esn.report.tables import group_table, inspection_tables

    inspection = run(open_model(model, ratios_out), **given)
    found = inspection.groups or ()
    out.say(group_table(found, members=out.verbose) if groups else inspection_tables(inspection))
    if ratios_out is not None:
        write_text(inspection.ratios().to_json(), ratios_out)
        out.say(f"wrote {ratios_out}")
    out.document(inspection.to_document())


@command("prune model.onnx -o pruned.onnx --ratio 0.3")
@options.model_argument
@options.output_option
@options.prune_options
@options.plan_options("Replay a plan, or follow a file of ratios.")
@options.layers_options
@options.images_options(required=False)
@click.option("--refit/--no-refit", default=True, help="Refit weights on the images (default).")
@options.shape_option
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

    source = open_model(model, output, plan_out, plan=given["plan"])
    with out.progress() as progress:
        result = verbs.prune(source, progress=progress, **given)
    del source  # as large as the file
    finish(out, "prune", result, model, output, plan_out)


@command("recalibrate small.onnx -o better.onnx --images photos/ --reference model.onnx")
@options.model_argument
@options.output_option
@options.images_options(required=True)
@click.option("--reference", type=click.Path(path_type=Path), help="The model it came from.")
@click.option(
    "--method", type=click.Choice(["match", "reestimate"]), help="Default: match with a reference."
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


@command("quantize model.onnx -o q.onnx --target-cost 10% --images photos/")
@options.model_argument
@options.output_option
@options.bits_options
@options.method_option
@options.effort_option
@options.quantizer_option
@options.requantize_option
@options.plan_options("Replay a plan.")
@options.images_options(required=False)
@click.option("--reference", type=click.Path(path_type=Path), help="Model to recalibrate towards.")
@options.format_options
@options.activation_options
@options.external_option
@options.layers_options
@options.shape_option
@options.run_options
def quantize(
    out: Output,
    model: Path,
    output: Path,
    plan_out: Path | None,
    external_data: bool | None,
    **given: Any,
) -> None:
    """Quantize weights filter-wise."""
    from onnx_esn import verbs

    source = open_model(model, output, plan_out, plan=given["plan"])
    with out.progress() as progress:
        result = verbs.quantize(source, progress=progress, **given)
    del source  # as large as the file
    finish(out, "quantize", result, model, output, plan_out, external_data)


@command("convert q.onnx -o small.onnx --format qdq")
@options.model_argument
@options.output_option
@options.convert_options
@options.external_option
def convert(
    out: Output, model: Path, output: Path, external_data: bool | None, **given: Any
) -> None:
    """Store quantized weights in another format: the same model in fewer bytes."""
    from onnx_esn import verbs

    source = open_model(model, output)
    result = verbs.convert(source, **given)
    del source  # as large as the file
    finish(out, "convert", result, model, output, external_data=external_data)


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
    from onnx_esn import verbs

    source = open_model(model, output)
    result = verbs.equalize(source, **given)
    del source  # as large as the file
    finish(out, "equalize", result, model, output)


@command("annotate model.onnx -o annotated.onnx")
@options.model_argument
@options.output_option
@options.shape_option
def annotate(out: Output, model: Path, output: Path, **given: Any) -> None:
    """Write each layer's cost into the model's metadata."""
    from onnx_esn import verbs

    source = open_model(model, output)
    result = verbs.annotate(source, **given)
    del source  # as large as the file
    finish(out, "annotate", result, model, output)


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
    type=click.Choice(["compensated", "nearest"]),
    help="Codes that make each other's errors good, or plain rounding.",
)
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


@command("evaluate model.onnx small.onnx --images photos/ --labels labels.csv")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.images_options(required=True)
@options.labels_option
@click.option("--reference", type=click.Path(path_type=Path), help="Default: the first model.")
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

    open_model(model)
    with out.progress() as progress:
        show = progress and functools.partial(progress, "points")
        result = run(model, images, output, progress=show, **given)
    document = result.to_document()
    out.say(sweep_table(document))
    try:
        plots = plot_sweep(document, output)
        names = ", ".join(dict.fromkeys(path.stem for path in plots))
        out.say(f"wrote {output}: {names} (PNG and SVG)")
    except OptionError as error:
        logging.getLogger("onnx_esn").warning("no plot: %s", error)
    out.document(document)


def main() -> None:
    """Entry point."""
    cli(prog_name="onnx-esn")
