"""Models whose weights are integers already: refuse to quantize them, or bring the floats back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from onnx_esn.errors import OptionError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.quantized import quantizing_node, with_float_weights
from onnx_esn.passes.annotation import strip_annotation
from onnx_esn.passes.base import PassResult, Skipped
from onnx_esn.passes.layers.patterns import left_out
from onnx_esn.plans import QuantizationPlan, load_plan

# Their weights are integers, and no DequantizeLinear tells what they stand for.
_FUSED = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm")
_NAMED = 3
STAYS = "QuantizeLinear and DequantizeLinear on activations stay as they are"


def open_weights(
    model: onnx.ModelProto,
    *,
    requantize: bool = False,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    plan: QuantizationPlan | str | Path | None = None,
) -> PassResult:
    """The model with float weights wherever some are to be quantized.

    The model itself where none of these is stored as integers or quantized in the graph.
    `details` of the result: `opened_layers`, how many were.

    Args:
        model: the model.
        requantize: whether the floats that DequantizeLinear makes may take the integers' place.
        only, exclude: patterns on the layers to quantize.
        plan: or else what names them.

    Raises:
        OptionError: there are such weights, and `requantize` is not set; or there are layers whose
            integers cannot be opened only.
    """
    constants = Constants(model)
    layers = find_layers(model, constants, Facts(sizes={}))
    if plan is not None:
        named = {entry.layer for entry in load_plan(plan, QuantizationPlan).layers}
        left = {x.name for x in layers if x.name not in named}
    else:
        left = set(left_out(layers, only, exclude)) if only or exclude else set()
    integer = [x for x in layers if quantizing_node(x.weight, constants) is not None]
    if not layers:
        _check_fused(model)
    wanted = [x for x in integer if x.name not in left]
    if not wanted:
        return PassResult(model, False, details={"opened_layers": 0})
    if not requantize:
        raise OptionError(
            f"{_names(wanted)}: quantized already ({len(wanted)} of {len(layers)} layers have "
            "weights behind DequantizeLinear or Quant); give --requantize to quantize what these "
            "weights stand for once more, or --exclude the layers"
        )
    kept = {x.weight for x in integer if x.name in left}
    opened = [x for x in wanted if x.weight not in kept]
    if not opened:
        return PassResult(model, False, details={"opened_layers": 0})
    result = with_float_weights(model, opened)
    strip_annotation(result)
    quantizers = sum(n.op_type == "QuantizeLinear" for n in result.graph.node)
    notes = (Skipped("activations", STAYS),) if quantizers else ()
    return PassResult(result, True, notes, details={"opened_layers": len(opened)})


def with_opening(result: PassResult, opening: PassResult) -> PassResult:
    """The result of quantizing the model of `opening`, which `open_weights` returned."""
    modified = result.modified or opening.modified
    return replace(result, modified=modified, skipped=(*opening.skipped, *result.skipped))


def _check_fused(model: onnx.ModelProto) -> None:
    fused = [n.op_type for n in model.graph.node if n.op_type in _FUSED]
    if fused:
        kinds = ", ".join(f"{fused.count(op)} {op}" for op in dict.fromkeys(fused))
        raise OptionError(
            f"the model has integer operators only ({kinds}), whose weights cannot be quantized "
            "again; start from the float model, or from one with QuantizeLinear and "
            "DequantizeLinear (QDQ)"
        )


def _names(layers: Sequence[Layer]) -> str:
    names = [x.name for x in layers]
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
