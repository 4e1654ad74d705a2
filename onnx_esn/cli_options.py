"""The options of the command line: names, types and help texts, shared between the verbs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_esn.urls import is_url

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:  # it takes no type argument when it runs, before click 8.4
    ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])


class Shape(ParamType):
    """`1,3,224,224` or `name:1,3,224,224`, as (name, sizes)."""

    name = "shape"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse, or fail with what is expected."""
        if not isinstance(value, str):
            return value
        name, _, sizes = value.rpartition(":")
        try:
            shape = tuple(int(n) for n in sizes.split(","))
        except ValueError:
            shape = ()
        if not shape or min(shape) < 1:
            self.fail(f"{value!r} is not a shape such as 1,3,224,224 or name:1,3,224,224")
        return name, shape


class Numbers(ParamType):
    """Numbers separated by commas."""

    name = "list"

    def __init__(self, kind: Callable[[str], Any]) -> None:
        self.kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse, or fail with what is expected."""
        if not isinstance(value, str):
            return value
        try:
            return tuple(self.kind(v) for v in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers separated by commas")


class Place(click.Path):
    """A path, or a URL, which stays the text that it is."""

    name = "path"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """A `Path`, or a URL as it was given."""
        return value if is_url(value) else super().convert(value, param, ctx)


def stacked(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""

    def wrap(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return wrap


def _shapes(ctx: click.Context, param: click.Parameter, given: Sequence[Any]) -> Any:
    """One nameless shape as it is, several by name, None for none."""
    if not given:
        return None
    if len(given) == 1 and not given[0][0]:
        return given[0][1]
    if any(not name for name, _ in given):
        raise click.BadParameter("with several, write each as NAME:1,3,224,224")
    return dict(given)


model_argument = click.argument("model", type=click.Path(path_type=Path))
output_option = click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="File to write."
)
shape_option = click.option(
    "--input-shape",
    type=Shape(),
    multiple=True,
    callback=_shapes,
    metavar="[NAME:]1,3,224,224",
    help="Size of dynamic axes; once per input.",
)
recipe_option = click.option(
    "--recipe",
    type=Place(),
    help="Preprocessing (TOML); default: recipe.toml in the folder.",
)
run_options = stacked(
    click.option(
        "--batch-size",
        default=64,
        show_default=True,
        type=click.IntRange(1),
        help="Images at a time; results do not depend on it.",
    ),
    click.option(
        "--threads", type=click.IntRange(1), help="onnxruntime threads; default: all cores."
    ),
)


def images_options(required: bool) -> Callable[[F], F]:
    """--images and --recipe."""
    images = click.option(
        "--images",
        required=required,
        type=Place(),
        metavar="SET",
        help="Folder of images, or .npy/.npz of ready tensors; a path or a URL.",
    )
    return stacked(images, recipe_option)


prune_options = stacked(
    click.option("--ratio", type=float, help="Fraction of the prunable filters to remove."),
    click.option("--target-macs", metavar="P", help="MACs to reach: 50%, 300M."),
    click.option(
        "--criterion",
        default="signal-norm",
        show_default=True,
        help="What ranks filters: signal-norm, effective-norm, output-variance, l1-norm, bn-scale, "
        "or reconstruction (what the outputs lose; needs images).",
    ),
    click.option(
        "--scope",
        type=click.Choice(["global", "layer"]),
        help="All filters ranked together, or the same share of every group (the default, but for "
        "--criterion reconstruction --target-macs).",
    ),
    click.option(
        "--round-to",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Widths of layers that lose filters become multiples of this.",
    ),
    click.option(
        "--min-width",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Filters that every layer keeps.",
    ),
    click.option("--exact", is_flag=True, help="First remove what changes nothing."),
    click.option(
        "--absorb",
        default="mean",
        show_default=True,
        type=click.Choice(["none", "constant", "mean"]),
        help="What of removed channels goes into their consumers' biases.",
    ),
)
selection_options = stacked(
    click.option(
        "--selection",
        default="ranked",
        show_default=True,
        type=click.Choice(["ranked", "qcqp"]),
        help="Filters by criterion and scope, or those worth most together (quadratic program) "
        "within all targets.",
    ),
    click.option("--target-params", metavar="P", help="Weights to reach (qcqp): 50%, 1.2M."),
    click.option(
        "--target-memory",
        metavar="P",
        help="Activation elements, all layers added up, to reach (qcqp): 50%, 2M.",
    ),
    click.option(
        "--target-latency", metavar="T", help="Modelled time to reach (qcqp): 50%, 3.5ms."
    ),
    click.option(
        "--latency-model",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="What 'onnx-esn profile' wrote, for --target-latency.",
    ),
    click.option(
        "--solver-time",
        default=60.0,
        show_default=True,
        type=click.FloatRange(0, min_open=True),
        metavar="S",
        help="Seconds that the search may take (qcqp).",
    ),
)
granularity_option = click.option(
    "--granularity",
    default="channel",
    show_default=True,
    type=click.Choice(["channel", "spatial"]),
    help="Whole filters, or positions of kernels: zeroed (--ratio), or smaller kernels "
    "(--target-macs).",
)
layers_options = stacked(
    click.option(
        "--only",
        multiple=True,
        metavar="PATTERN",
        help="The only layers that are touched (* and ?).",
    ),
    click.option(
        "--exclude", multiple=True, metavar="PATTERN", help="Layers that are left alone (* and ?)."
    ),
)
evaluation_option = click.option(
    "--eval-images",
    type=Place(),
    metavar="SET",
    help="Images for the closing figures (--labels speaks of these); default: a fifth of --images.",
)
bits_options = stacked(
    click.option("--bits", type=int, help="Bits of every filter, 1..8."),
    click.option(
        "--target-cost", metavar="P", help="ESN'_d to reach: 10%, 1.2G; each filter its own bits."
    ),
)
quantizer_option = click.option(
    "--quantizer",
    default="mid-rise",
    show_default=True,
    type=click.Choice(["mid-rise", "mid-tread"]),
    help="Without or with a level at zero; a plan says for itself.",
)
requantize_option = click.option(
    "--requantize",
    is_flag=True,
    help="Quantize weights that are integers already (QDQ models) once more.",
)
_opset_options = stacked(
    click.option("--keep-opset", is_flag=True, help="Never raise the operator set."),
    click.option(
        "--opset",
        type=click.IntRange(10, 25),
        help="Operator set to raise the model to (25: 2-bit integers); default: 21 where it saves.",
    ),
)
external_option = click.option(
    "--external-data/--no-external-data",
    default=None,
    help="Weights in a file of their own, OUTPUT.HASH.data; default: as the input, and above 2 GB.",
)
format_options = stacked(
    click.option(
        "--format",
        default="fake",
        show_default=True,
        type=click.Choice(["fake", "qdq", "qonnx"]),
        help="Floats on the grid, integers behind DequantizeLinear, or Quant nodes.",
    ),
    _opset_options,
)
activation_options = stacked(
    click.option(
        "--activations",
        default="none",
        show_default=True,
        type=click.Choice(["none", "int8", "int16", *(f"uint{n}" for n in range(8, 1, -1))]),
        metavar="KIND",
        help="Quantize activations too, for integer kernels; stored as QDQ: uint8 (suits CPUs), "
        "int8, int16, uint7 … uint2. Learned with method qil.",
    ),
    click.option(
        "--calibrator",
        type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
        help="Ranges of activations; default: percentile, for int16 minmax, below 8 bits mse.",
    ),
)
convert_options = stacked(
    click.option(
        "--format", required=True, type=click.Choice(["fake", "qdq", "qonnx"]), help="The format."
    ),
    _opset_options,
)
method_option = click.option(
    "--method",
    type=click.Choice(["compensated", "nearest", "aciq", "qil"]),
    help="Codes that make each other's errors good (the default with images), plain rounding, "
    "analytical clipping (Banner et al.), or codes and intervals learned on the images.",
)
learn_options = stacked(
    click.option(
        "--epochs",
        type=click.IntRange(1),
        help="Passes over the images to learn from (default 20).",
    ),
    click.option(
        "--start-bits",
        type=click.IntRange(2, 8),
        help="Begin to learn with so many bits, and take them away one by one.",
    ),
    click.option("--seed", default=0, show_default=True, help="Order and variation of images."),
)
effort_option = click.option(
    "--effort",
    default="balanced",
    show_default=True,
    type=click.Choice(["fast", "balanced", "thorough"]),
    help="How much is tried to meet --target-cost.",
)
max_divergence_option = click.option(
    "--max-divergence",
    type=float,
    metavar="X",
    help="Exit with 1 where the outputs diverge by more; needs images.",
)
labels_option = click.option(
    "--labels",
    type=Place(),
    help="CSV with file,label, to measure accuracy; default: labels.csv of the images.",
)

sweep_options = stacked(
    click.option(
        "--targets", type=Numbers(float), help="Mean bits per MAC to reach; default: 4,3,2,1."
    ),
    click.option(
        "--methods",
        type=Numbers(str),
        help="Default: nearest,quantize-only,prune-only,prune-then-quantize,joint.",
    ),
    click.option(
        "--effort",
        default="fast",
        show_default=True,
        type=click.Choice(["fast", "balanced", "thorough"]),
        help="How much each method tries to meet a target.",
    ),
    click.option(
        "--ratios",
        type=Numbers(float),
        help="A grid instead of methods: fractions of the prunable filters to remove "
        "(0,.25,.5,.75 if only --bits is given).",
    ),
    click.option(
        "--bits",
        type=Numbers(int),
        help="A grid instead of methods: bits of every filter "
        "(2,3,4,5,6,8 if only --ratios is given).",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler, such as tcp://10.0.0.1:8786, whose workers compute the points.",
    ),
)


report_option = click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write report.html, one page with all figures, and report.json.",
)


def plan_options(what: str) -> Callable[[F], F]:
    """--plan and --plan-out."""
    return stacked(
        click.option("--plan", type=click.Path(path_type=Path), help=what),
        click.option(
            "--plan-out", type=click.Path(path_type=Path), help="Write the decision as JSON."
        ),
    )
