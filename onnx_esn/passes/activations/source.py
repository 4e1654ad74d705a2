"""Which models can have their activations quantized, and at which operator set."""

from __future__ import annotations

import logging

import onnx
from onnx import TensorProto

from onnx_esn.errors import ModelError, OptionError
from onnx_esn.formats.activations_grid import Kind
from onnx_esn.graph.constants import Constants, operator_sets
from onnx_esn.graph.opset import raise_opset
from onnx_esn.passes.base import copied

log = logging.getLogger(__name__)


def check_types(model: onnx.ModelProto) -> None:
    """Raise `ModelError` for what no integer kernel takes."""
    half = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    stored = {t.name for t in model.graph.initializer}
    for info in model.graph.input:
        elem = info.type.tensor_type.elem_type
        if info.name not in stored and elem in half:
            name = TensorProto.DataType.Name(elem).lower()
            raise ModelError(
                f"input '{info.name}' is {name}: activations are quantized from float32 only; "
                f"export the model in float32"
            )
    constants = Constants(model)
    for node in model.graph.node:
        if node.op_type.startswith(("QLinear", "DynamicQuantize")) or (
            node.op_type == "QuantizeLinear" and node.input[0] not in constants
        ):
            raise ModelError(
                f"{node.op_type} '{node.name or node.output[0]}': the model's activations are "
                f"quantized already; give the model from before that"
            )


def raised(model: onnx.ModelProto, kind: Kind, keep: bool) -> onnx.ModelProto:
    """A copy of the model, at an operator set that has what is written."""
    before = operator_sets(model).get("", 1)
    if before >= kind.opset:
        return copied(model)
    if keep:
        raise OptionError(
            f"{kind.name} activations need operator set {kind.opset}, the model has {before}: do "
            f"without keep_opset"
        )
    log.info("operator set %d raised to %d: %s activations", before, kind.opset, kind.name)
    result, translated = raise_opset(model, kind.opset)
    if translated:
        log.info("onnx's converter translated %s", ", ".join(translated))
    return result
