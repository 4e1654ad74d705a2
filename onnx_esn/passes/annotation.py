"""`annotate`: what `inspect` found, written into the model itself, where Netron shows it.

Each layer's node gets `onnx_esn.macs`, `.bits` ("4", or "0-6" for a range over its filters),
`.esn_a`, `.esn_d` and `.esn_prime_d`; a figure that is unknown has no key. The model gets the whole
inspection document (`onnx_esn.inspection`), the bits of each filter (`onnx_esn.filter_bits`) and
totals for people (`onnx_esn.total_…`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import onnx

from onnx_esn.graph import metadata
from onnx_esn.graph.layers import OPERATORS
from onnx_esn.graph.node_names import node_name
from onnx_esn.passes.base import PassResult, Skipped, copied
from onnx_esn.passes.inspecting.inspection import inspect
from onnx_esn.passes.inspecting.result import Inspection, LayerInspection, json_ready, to_json
from onnx_esn.passes.layers.costs import InputShape

_NODE_KEYS = ("macs", "bits", "esn_a", "esn_d", "esn_prime_d")
_TOTALS = {
    "total_macs": ("macs", "MAC"),
    "total_parameters": ("parameters", "weights"),
    "total_esn_a": ("esn_a", ""),
    "total_esn_d": ("esn_d", "MAC·bit"),
    "total_esn_prime_d": ("esn_prime", "MAC·bit"),
    "total_bits_per_mac": ("bits_per_mac", "bit"),
}
_MODEL_KEYS = ("inspection", "filter_bits", *_TOTALS)


@dataclass(frozen=True)
class Annotate:
    """Write costs into `metadata_props`; a second run replaces what the first one wrote.

    Nodes carry metadata from IR version 10 on; below it only the model does, and the IR version
    stays what it is.

    Attributes:
        input_shape: as for `inspect`.
    """

    input_shape: InputShape | None = None

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the annotated model; raises what `inspect` raises."""
        inspection = inspect(model, input_shape=self.input_shape)
        result = copied(model)
        skipped: tuple[Skipped, ...] = ()
        if model.ir_version >= metadata.NODE_IR_VERSION:
            _annotate_nodes(result, inspection)
        else:
            reason = (
                f"IR version {model.ir_version} has no metadata on nodes (10 and above have); "
                "the model's own metadata holds the figures of every layer"
            )
            skipped = (Skipped("nodes", reason),)
        values = {
            "inspection": to_json(inspection.to_document()),
            "filter_bits": to_json({x.name: x.filter_bits for x in inspection.layers}),
        }
        for key, (name, unit) in _TOTALS.items():
            figure = getattr(inspection.totals, name)
            if figure is not None:
                values[key] = f"{_human(figure)} {unit}".strip()
        metadata.remove(result, set(_MODEL_KEYS) - set(values))
        metadata.replace(result, values)
        details = {"annotated": len(inspection.layers)}
        return PassResult(result, result != model, skipped, details=details)


def strip_annotation(model: onnx.ModelProto, *, stored_bits: bool = True) -> bool:
    """Remove from a model, in place, what `Annotate` writes; True if there was anything.

    For passes that change the figures.

    Args:
        model: the model.
        stored_bits: whether the true bits that format `qonnx` notes go too.
    """
    more = ("quant_bits",) if stored_bits else ()
    found = metadata.remove(model, (*_MODEL_KEYS, *more))
    for node in model.graph.node:
        found |= metadata.remove(node, (*_NODE_KEYS, *more))
    return found


def annotated_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]] | None:
    """Input shapes that the model was annotated at; None where it is not annotated."""
    try:
        document = json.loads(metadata.read(model).get("inspection", "null"))
        return {name: tuple(shape) for name, shape in document["input_shapes"].items()}
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def _annotate_nodes(model: onnx.ModelProto, inspection: Inspection) -> None:
    layers = {layer.name: layer for layer in inspection.layers}
    for node in model.graph.node:
        names = (node_name(node), *node.output) if node.op_type in OPERATORS else ()
        layer = next((layers[name] for name in names if name in layers), None)
        values = {} if layer is None else _figures(layer)
        metadata.remove(node, set(_NODE_KEYS) - set(values))
        metadata.replace(node, values)


def _figures(layer: LayerInspection) -> dict[str, str]:
    low, high = min(layer.bits, default=0), max(layer.bits, default=0)
    figures = (layer.macs, None, layer.esn_a, layer.esn_d, layer.esn_prime)
    values = {
        key: str(json_ready(figure))
        for key, figure in zip(_NODE_KEYS, figures, strict=True)
        if figure is not None
    }
    return {**values, "bits": str(low) if low == high else f"{low}-{high}"}


def _human(figure: float) -> str:
    """Three digits and a thousands suffix: 40.8 M."""
    for factor, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(figure) >= 0.9995 * factor:
            return f"{figure / factor:#.3g}".rstrip(".") + suffix
    return f"{figure:.3g}"
