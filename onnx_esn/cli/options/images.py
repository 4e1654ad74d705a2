"""The images, and how the model is run on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from onnx_esn.cli.options.values import F, Place, Shape, stacked


def _shapes(ctx: click.Context, param: click.Parameter, given: Sequence[Any]) -> Any:
    """One nameless shape as it is, several by name, None for none."""
    if not given:
        return None
    if len(given) == 1 and not given[0][0]:
        return given[0][1]
    if any(not name for name, _ in given):
        raise click.BadParameter("with several, write each as NAME:1,3,224,224")
    return dict(given)


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


evaluation_option = click.option(
    "--eval-images",
    type=Place(),
    metavar="SET",
    help="Images for the closing figures (--labels speaks of these); default: a fifth of --images.",
)
labels_option = click.option(
    "--labels",
    type=Place(),
    help="CSV with file,label, to measure accuracy; default: labels.csv of the images.",
)
views_option = click.option(
    "--views",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Views of each image that statistics are taken of: itself, and parts of it; default: 4 "
    "where there are 128 images or fewer, else 1.",
)
run_options = stacked(
    click.option(
        "--batch-size",
        default=64,
        show_default=True,
        type=click.IntRange(1),
        help="Images at a time; results are as good with any.",
    ),
    click.option(
        "--threads", type=click.IntRange(1, 1024), help="onnxruntime threads; default: all cores."
    ),
)
