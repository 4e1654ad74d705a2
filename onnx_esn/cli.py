"""The command line: one command a verb, no logic of its own.

Only this file prints and exits. Everything heavy is imported inside the commands, so that
`--help` answers at once.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from onnx_esn import __version__
from onnx_esn import cli_options as options
from onnx_esn.errors import InputError, OnnxEsnError, OptionError

if TYPE_CHECKING:
    import onnx
    from rich.console import RenderableType

    from onnx_esn.passes.base import PassResult

F = TypeVar("F", bound=Callable[..., Any])
Progress = Callable[[str, int, int], None]


class Output:
    """What the shared options say about printing."""

    def __init__(self, quiet: bool, verbose: int, as_json: bool) -> None:
        self.quiet, self.as_json = quiet, as_json
        level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
        if verbose > 1:
            level = logging.DEBUG
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_LevelFirst())
        root = logging.getLogger("onnx_esn")
        root.handlers[:] = [handler]
        root.setLevel(level)
        root.propagate = False

    def say(self, *things: RenderableType) -> None:
        """Print for people, on stdout; nothing with --json or --quiet."""
        if self.quiet or self.as_json:
            return
        from rich.console import Console

        piped = not sys.stdout.isatty()
        console = Console(highlight=False, width=100 if piped else None, no_color=piped or None)
        for thing in things:
            # A line stays a line in a pipe, for those who search it.
            console.print(thing, soft_wrap=isinstance(thing, str) and piped)

    def document(self, document: object) -> None:
        """Print the one JSON document, with --json."""
        if self.as_json:
            click.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))

    @contextmanager
    def progress(self) -> Iterator[Progress | None]:
        """A progress bar on a terminal's stderr; silent everywhere else."""
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), transient=True) as bar:
            tasks: dict[str, Any] = {}

            def show(what: str, done: int, of: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=of)
                bar.update(tasks[what], completed=done, total=of)

            yield show


class _LevelFirst(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {record.getMessage()}"


def command(example: str) -> Callable[[F], click.Command]:
    """A verb: shared options, an example in its help, errors as one line and an exit code."""

    def wrap(function: F) -> click.Command:
        @click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
        @click.option("--verbose", "-v", count=True, help="Say more; twice: debug.")
        @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
        @functools.wraps(function)
        def run(*args: Any, quiet: bool, verbose: int, as_json: bool, **kwargs: Any) -> None:
            try:
                function(Output(quiet, verbose, as_json), *args, **kwargs)
            except OnnxEsnError as error:
                _fail(str(error), 2 if isinstance(error, InputError) else 1)
            except KeyboardInterrupt:
                _fail("interrupted", 130)
            except MemoryError:
                _fail("out of memory; a smaller --batch-size needs less", 1)
            except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
                raise
            except Exception as error:
                if verbose > 1:
                    raise
                _fail(f"internal error: {type(error).__name__}: {error} (-vv shows where)", 1)

        return cli.command(
            name=function.__name__.rstrip("_"), epilog=f"Example:  onnx-esn {example}"
        )(run)

    return wrap


def _fail(message: str, code: int) -> NoReturn:
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="onnx-esn")
def cli() -> None:
    """Make exported ONNX CNNs cheap: no labels, no training code, no framework."""


@command("inspect model.onnx --input-shape 1,3,224,224")
@options.model_argument
@options.shape_option
def inspect(out: Output, model: Path, input_shape: Sequence[Any]) -> None:
    """Show what each layer costs (MACs, bits, ESN) and which channels can be pruned."""
    from onnx_esn.passes.inspection import inspect as run
    from onnx_esn.report.tables import inspection_tables

    inspection = run(_open(model), input_shape=_shape(input_shape))
    out.say(inspection_tables(inspection))
    out.document(inspection.to_document())


@command("prune model.onnx -o pruned.onnx --ratio 0.3")
@options.model_argument
@options.output_option
@options.prune_options
@options.plan_options
@options.exclude_option
@options.images_options(required=False)
@options.shape_option
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))
def prune(
    out: Output,
    model: Path,
    output: Path,
    plan_out: Path | None,
    input_shape: Sequence[Any],
    **given: Any,
) -> None:
    """Remove filters and everything coupled to them."""
    from onnx_esn import verbs

    source = _open(model, output, plan_out)
    result = verbs.prune(source, input_shape=_shape(input_shape), **given)
    _finish(out, "prune", result, source, output, plan_out)


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

    source = _open(model, output)
    with out.progress() as progress:
        result = verbs.recalibrate(source, images, progress=progress, **given)
    _finish(out, "recalibrate", result, source, output)


@command("quantize model.onnx -o q.onnx --target-cost 10% --images photos/")
@options.model_argument
@options.output_option
@options.bits_options
@options.plan_options
@options.images_options(required=False)
@click.option("--reference", type=click.Path(path_type=Path), help="Model to recalibrate towards.")
@click.option("--format", default="fake", show_default=True, type=click.Choice(["fake"]))
@options.exclude_option
@options.shape_option
@options.run_options
def quantize(
    out: Output,
    model: Path,
    output: Path,
    plan_out: Path | None,
    input_shape: Sequence[Any],
    **given: Any,
) -> None:
    """Quantize weights filter-wise with the mid-rise quantizer."""
    from onnx_esn import verbs

    source = _open(model, output, plan_out)
    with out.progress() as progress:
        result = verbs.quantize(source, input_shape=_shape(input_shape), progress=progress, **given)
    _finish(out, "quantize", result, source, output, plan_out)


@command("annotate model.onnx -o annotated.onnx")
@options.model_argument
@options.output_option
@options.shape_option
def annotate(out: Output, model: Path, output: Path, input_shape: Sequence[Any]) -> None:
    """Write each layer's cost into the model's metadata."""
    from onnx_esn import verbs

    source = _open(model, output)
    result = verbs.annotate(source, input_shape=_shape(input_shape))
    _finish(out, "annotate", result, source, output)


@command("compress model.onnx -o small.onnx --images photos/ --target-cost 10%")
@options.model_argument
@options.output_option
@options.images_options(required=True)
@options.bits_options
@options.prune_options
@options.exclude_option
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
    input_shape: Sequence[Any],
    **given: Any,
) -> None:
    """Prune, recalibrate, quantize, recalibrate, annotate; compare before and after."""
    from onnx_esn import pipeline, verbs
    from onnx_esn.graph.model_file import write_text
    from onnx_esn.report.summaries import result_document, summary
    from onnx_esn.report.tables import comparison_table, skipped_table

    source = _open(model, output, report)
    with out.progress() as progress:
        result = pipeline.compress(
            source, images, input_shape=_shape(input_shape), progress=progress, **given
        )
    outputs = {"model": str(output)}
    document = result_document("compress", result.stages, outputs)
    document["evaluation"] = None if result.evaluation is None else result.evaluation.to_document()
    verbs.write_model(result.model, output, source)
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
    input_shape: Sequence[Any],
    **given: Any,
) -> None:
    """Compare models: cost, size, latency, agreement, accuracy."""
    from onnx_esn.evaluation import evaluate as run
    from onnx_esn.report.tables import comparison_table

    for model in models:
        _open(model)
    with out.progress() as progress:
        comparison = run(
            list(models),
            images,
            input_shape=_shape(input_shape),
            progress=progress and functools.partial(progress, "evaluate"),
            **given,
        )
    out.say(comparison_table(comparison))
    out.document(comparison.to_document())


@command("sweep model.onnx --images photos/ -o sweep/ --labels labels.csv")
@options.model_argument
@options.images_options(required=True)
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="Folder to write."
)
@options.labels_option
@options.evaluation_option
@click.option(
    "--ratios",
    default="0,.25,.5,.75",
    show_default=True,
    type=options.Numbers(float),
    help="Fractions of the prunable filters to remove.",
)
@click.option(
    "--bits",
    default="2,3,4,5,6,8",
    show_default=True,
    type=options.Numbers(int),
    help="Bits of every filter.",
)
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))
@click.option("--save-models", is_flag=True, help="Write each model too.")
def sweep(out: Output, model: Path, images: Path, output: Path, **given: Any) -> None:
    """Compress over a grid of ratios and bits; CSV, JSON and a Pareto plot. Resumable."""
    from onnx_esn.report.plots import plot_sweep
    from onnx_esn.report.tables import sweep_table
    from onnx_esn.search.sweep import sweep as run

    _open(model)
    with out.progress() as progress:
        show = progress and functools.partial(progress, "points")
        result = run(model, images, output, progress=show, **given)
    document = result.to_document()
    out.say(sweep_table(document))
    try:
        plots = plot_sweep(document, output)
        out.say("wrote " + ", ".join(str(p) for p in plots))
    except OptionError as error:
        logging.getLogger("onnx_esn").warning("no plot: %s", error)
    out.document(document)


def _open(model: Path, *outputs: Path | None) -> onnx.ModelProto:
    """Open the model, once it is clear that the outputs have a place to go."""
    from onnx_esn.verbs import opened

    for output in (o for o in outputs if o is not None):
        if output.is_dir():
            raise OptionError(f"{output}: is a folder; name a file to write")
        if not output.parent.is_dir():
            raise OptionError(f"{output}: its folder does not exist; create it first")
        if output.exists() and model.exists() and output.samefile(model):
            raise OptionError(f"{output}: is the input itself; write to another file")
    return opened(model)


def _shape(given: Sequence[tuple[str, tuple[int, ...]]]) -> Any:
    if not given:
        return None
    if len(given) == 1 and not given[0][0]:
        return given[0][1]
    if any(not name for name, _ in given):
        raise OptionError("several --input-shape: write each as NAME:1,3,224,224")
    return dict(given)


def _finish(
    out: Output,
    verb: str,
    result: PassResult,
    source: onnx.ModelProto,
    output: Path,
    plan_out: Path | None = None,
) -> None:
    """Write the model and the plan, then say what happened."""
    from onnx_esn.graph.model_file import write_text
    from onnx_esn.report.summaries import result_document, summary
    from onnx_esn.report.tables import skipped_table
    from onnx_esn.verbs import write_model

    outputs = {"model": str(output)}
    write_model(result.model, output, source)
    if plan_out is not None and result.plan is not None:
        write_text(result.plan.to_json(), plan_out)
        outputs["plan"] = str(plan_out)
    out.say(*summary(verb, result))
    skipped = skipped_table(result.skipped)
    if skipped is not None:
        out.say("", skipped)
    out.say("wrote " + ", ".join(outputs.values()))
    out.document(result_document(verb, [(verb, result)], outputs))


def main() -> None:
    """Entry point."""
    cli(prog_name="onnx-esn")
