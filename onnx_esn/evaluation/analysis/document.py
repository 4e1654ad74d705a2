"""The JSON document of an analysis (every field: docs/json.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnx_esn.passes.inspecting.result import json_ready

from .advice import CAVEAT, layer_advice, model_advice, tallies, winner
from .theory import theory

if TYPE_CHECKING:
    from onnx_esn.passes.analysis.channels import ChannelAnalysis
    from onnx_esn.passes.analysis.outputs import OutputAnalysis
    from onnx_esn.passes.analysis.tensors import TensorAnalysis

    from .findings import Findings

SCHEMA = "onnx-esn/analysis/1"


def to_document(found: Findings) -> dict[str, Any]:
    """JSON-ready; infinities and NaN become null."""
    whole = found.model_channels
    document = {
        "schema": SCHEMA,
        "model": found.name,
        "images": found.images,
        "samples": found.samples if found.images is not None else None,
        "seed": found.seed,
        "summary": [asdict(x) for x in tallies(found)],
        "recommendation": [*model_advice(found), *([CAVEAT] if found.tensors else [])],
        "layers": [_tensor(found, x) for x in found.tensors],
        "channels": [_channels(x) for x in found.channels],
        "whole_model": None if whole is None else _channels(whole),
        "theory": [
            {
                "density": density.name,
                "excess_kurtosis": density.excess_kurtosis,
                "snr": [{"bits": b, "quantized": q, "pruned": p} for b, q, p in snr],
            }
            for density, snr in theory()
        ],
        "skipped": [asdict(x) for x in found.skipped],
    }
    plain: dict[str, Any] = json_ready(document)
    return plain


def _tensor(found: Findings, x: TensorAnalysis) -> dict[str, Any]:
    return {
        "name": x.name,
        "layers": x.layers,
        "tensor": x.tensor,
        "weights": x.weights,
        "looked_at": x.looked_at,
        "excess_kurtosis": x.excess_kurtosis,
        "advice": layer_advice(found, x.name),
        "weight_snr": [_with_winner(asdict(s), winner(s.margin)) for s in x.snr],
        "outputs": [_outputs(found.outputs[n]) for n in x.layers if n in found.outputs],
    }


def _outputs(x: OutputAnalysis) -> dict[str, Any]:
    return {
        "layer": x.layer,
        "filters": x.filters,
        "looked_at": x.looked_at,
        "inputs": x.inputs,
        "snr": [_with_winner(asdict(s), winner(s.margin)) for s in x.snr],
        "blocks": [_with_winner(asdict(b), b.winner) for b in x.blocks],
    }


def _channels(x: ChannelAnalysis) -> dict[str, Any]:
    return {
        "group": x.group,
        "channels": x.channels,
        "layers": x.layers,
        "esn_prime": x.cost,
        "losses": [_with_winner(asdict(loss), loss.winner) for loss in x.losses],
    }


def _with_winner(row: Mapping[str, Any], who: str) -> dict[str, Any]:
    return {**row, "winner": who}
