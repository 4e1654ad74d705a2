"""How a quantized model is stored, with which activations."""

from __future__ import annotations

import click

from onnx_esn.cli.options.values import stacked

_opset_options = stacked(
    click.option("--keep-opset", is_flag=True, help="Never raise the operator set."),
    click.option(
        "--opset",
        type=click.IntRange(10, 25),
        help="Operator set to raise the model to (25: 2-bit integers); default: 21 where it saves.",
    ),
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
convert_options = stacked(
    click.option(
        "--format", required=True, type=click.Choice(["fake", "qdq", "qonnx"]), help="The format."
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
