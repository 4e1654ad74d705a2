"""Store a quantized model in one of the output formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from onnx_esn.errors import ModelError, OptionError
from onnx_esn.formats import FORMATS
from onnx_esn.formats.options import FormatOptions
from onnx_esn.formats.qonnx_folding import folded
from onnx_esn.formats.storage import file_bytes
from onnx_esn.formats.written import Written
from onnx_esn.graph.constants import Constants, operator_sets
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import find_layers
from onnx_esn.graph.quant_operators import is_quant
from onnx_esn.graph.quantized import quantizing_node, with_float_weights
from onnx_esn.graph.weights import read_weight
from onnx_esn.passes.annotation import strip_annotation
from onnx_esn.passes.base import PassResult, Skipped

_FLOATS = ("float", "integer")


@dataclass(frozen=True)
class Export:
    """Write weights that lie on a grid as a format stores them; the model computes the same.

    Plans and costs are those of the model before: its codes, bits and MACs stay. `details` of the
    result has the `format`: name, bytes of the file before and after, forms, operator set.

    Attributes:
        format: a name in `FORMATS`.
        keep_opset: the operator set stays what it is, though a format could store less at another.
        opset: operator set to raise the model to; None: only as far as the format needs it.
        strict: refuse a model none of whose weights lies on a grid.

    Raises:
        OptionError: the format is unknown.
    """

    format: str = "qdq"
    keep_opset: bool = False
    opset: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        """Check the name."""
        if self.format not in FORMATS:
            known = ", ".join(FORMATS)
            raise OptionError(f"format {self.format!r} is not known; there are: {known}")
        if self.format != "qdq" and (self.keep_opset or self.opset is not None):
            raise OptionError(f"format {self.format} leaves the operator set alone: leave it out")

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the model in the format.

        Raises:
            OptionError: the format cannot do with what the options leave it.
            ModelError: `strict`, and no weight lies on a grid; or the format cannot hold one.
        """
        source = model if self.format == "qdq" else _in_floats(model)
        options = FormatOptions(keep_opset=self.keep_opset, opset=self.opset)
        written = FORMATS[self.format](source, options)
        forms = {layer.form for layer in written.layers}
        if self.strict and forms == {"integer"}:
            raise ModelError("the weights of the model are stored as integers already")
        if self.strict and forms and forms <= set(_FLOATS):
            raise ModelError(
                "no weight of the model lies on a grid, so there is nothing to store as integers; "
                "quantize it first (onnx-esn quantize)"
            )
        strip_annotation(written.model, stored_bits=False)  # the stored types are other ones
        skipped = tuple(
            Skipped(x.name, f"stays as {x.type}: {x.reason}")
            for x in written.layers
            if x.form in _FLOATS
        )
        modified = written.model != model
        details = {"format": _details(self.format, model, written)}
        return PassResult(written.model, modified, skipped, details=details)


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or what onnxruntime can run of one in a format that it cannot (qonnx)."""
    return folded(model) if any(is_quant(node) for node in model.graph.node) else model


def _in_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights on a grid that are stored as integers turned back to floats."""
    constants = Constants(model)
    layers = [
        layer
        for layer in find_layers(model, constants, Facts(sizes={}))
        if quantizing_node(layer.weight, constants) is not None
        and read_weight(layer, constants).step is not None
    ]
    return with_float_weights(model, layers) if layers else model


def _details(name: str, model: onnx.ModelProto, written: Written) -> dict[str, Any]:
    before, after = (operator_sets(m).get("", 1) for m in (model, written.model))
    return {
        "name": name,
        "bytes_before": file_bytes(model),
        "bytes_after": file_bytes(written.model),
        "opset_before": before,
        "opset_after": after,
        "ir_version": written.model.ir_version,
        "forms": written.forms(),
        "layers": [layer.to_document() for layer in written.layers],
        "notes": _unique(written.notes),
    }


def _unique(lines: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(lines))
