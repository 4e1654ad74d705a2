"""Verbs about integer weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_esn.cli import options
from onnx_esn.cli.commands.base import command
from onnx_esn.cli.output import Output, finish, open_model


@command("quantize model.onnx -o q.onnx --target-cost 10% --images photos/")
@options.model_argument
@options.output_option
@options.bits_options
@options.method_option
@options.effort_option
@options.learn_options
@options.quantizer_option
@options.requantize_option
@options.rotate_option
@options.plan_options("Replay a plan.")
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    help="Bits per layer, as onnx-esn trace writes them.",
)
@options.images_options(required=False)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="The model whose outputs are wanted; default: the input.",
)
@options.format_options
@options.activation_options
@options.external_option
@options.layers_options
@options.shape_option
@options.views_option
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

    source = open_model(model, output, plan_out, plan=given["plan"], policy=given["policy"])
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

    with out.progress():
        source = open_model(model, output)
        result = verbs.convert(source, **given)
    del source  # as large as the file
    finish(out, "convert", result, model, output, external_data=external_data)
