"""The JSON document of a difference (every field: docs/json.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnx_esn.evaluation.comparison import OutputAgreement
from onnx_esn.passes.inspecting.result import LayerInspection, json_ready

if TYPE_CHECKING:
    from .changes import Changes, LayerDifference, ModelFigures, OutputsDifference

SCHEMA = "onnx-esn/difference/1"


def to_document(difference: Changes) -> dict[str, Any]:
    """JSON-ready; infinities and NaN become null."""
    document = {
        "schema": SCHEMA,
        "same": difference.same,
        "before": _model(difference.before),
        "after": _model(difference.after),
        "outputs": None if difference.outputs is None else _outputs(difference.outputs),
        "layers": [_layer(layer) for layer in difference.layers],
        "nodes": [asdict(node) for node in difference.nodes],
        "tensors": [asdict(tensor) for tensor in difference.tensors],
        "settings": [asdict(setting) for setting in difference.settings],
        "notes": list(difference.notes),
    }
    plain: dict[str, Any] = json_ready(document)
    return plain


def filter_width(layer: LayerInspection) -> tuple[int, float, int] | None:
    """Bits of the filters: smallest, mean, largest; None without filters."""
    widths: Sequence[int] = layer.filter_bits
    return (min(widths), sum(widths) / len(widths), max(widths)) if widths else None


def _model(figures: ModelFigures) -> dict[str, Any]:
    totals = figures.totals
    return {
        "name": figures.name,
        "nodes": figures.nodes,
        "layers": totals.layers,
        "macs": totals.macs,
        "parameters": totals.parameters,
        "esn_prime": totals.esn_prime,
        "bits_per_mac": totals.bits_per_mac,
        "bits_per_weight": totals.bits_per_weight,
        "initializer_bytes": totals.initializer_bytes,
        "file_bytes": figures.file_bytes,
    }


def _layer(layer: LayerDifference) -> dict[str, Any]:
    return {
        "name": layer.name,
        "before": None if layer.before is None else _side(layer.before),
        "after": None if layer.after is None else _side(layer.after),
        "removed": layer.removed,
        "weight_max_abs": layer.weight_max_abs,
        "weight_snr_db": layer.weight_snr_db,
        "output_snr_db": layer.output_snr_db,
        "output_equal": None if layer.output_snr_db is None else layer.output_snr_db == math.inf,
        "reason": layer.reason,
    }


def _side(layer: LayerInspection) -> dict[str, Any]:
    width = filter_width(layer)
    return {
        "name": layer.name,
        "op": layer.op,
        "filters": layer.filters,
        "channels_in": layer.channels_in,
        "groups": layer.groups,
        "kernel": layer.kernel,
        "macs": layer.macs,
        "parameters": layer.parameters,
        "storage": layer.storage,
        "storage_bits": layer.storage_bits,
        "quantized": layer.quantized,
        "bits": dict(layer.bits),
        "bits_min": None if width is None else width[0],
        "bits_mean": None if width is None else width[1],
        "bits_max": None if width is None else width[2],
        "esn_prime": layer.esn_prime,
    }


def _outputs(outputs: OutputsDifference) -> dict[str, Any]:
    return {
        "images": outputs.images,
        "samples": outputs.samples,
        "divergence": outputs.divergence,
        "latency_ms": None if outputs.latency is None else [x.median_ms for x in outputs.latency],
        "latency_ratio": None if outputs.latency is None else outputs.latency[1].ratio,
        "outputs": [_agreement(output) for output in outputs.outputs],
    }


def _agreement(output: OutputAgreement) -> dict[str, Any]:
    if output.agreement is None:
        return {"output": output.output, "reason": output.reason}
    return {"output": output.output, **asdict(output.agreement)}
