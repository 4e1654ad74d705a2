"""Plans: decisions as data, JSON in, JSON out: to be read, edited and replayed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from onnx_esn.errors import PlanError
from onnx_esn.plans.codes import decode_codes as decode_codes
from onnx_esn.plans.codes import encode_codes as encode_codes
from onnx_esn.plans.latency_model import LatencyModel as LatencyModel
from onnx_esn.plans.latency_model import LayerLatency as LayerLatency
from onnx_esn.plans.pruning import PRUNING_SCHEMA as PRUNING_SCHEMA
from onnx_esn.plans.pruning import FoldedConstant as FoldedConstant
from onnx_esn.plans.pruning import GroupEntry as GroupEntry
from onnx_esn.plans.pruning import MergedChannels as MergedChannels
from onnx_esn.plans.pruning import PruningPlan as PruningPlan
from onnx_esn.plans.pruning import SliceEntry as SliceEntry
from onnx_esn.plans.pruning import read_pruning
from onnx_esn.plans.quantization import QUANTIZATION_SCHEMA as QUANTIZATION_SCHEMA
from onnx_esn.plans.quantization import ActivationRange as ActivationRange
from onnx_esn.plans.quantization import ActivationRanges as ActivationRanges
from onnx_esn.plans.quantization import LayerQuantization as LayerQuantization
from onnx_esn.plans.quantization import QuantizationPlan as QuantizationPlan
from onnx_esn.plans.quantization import Rotation as Rotation
from onnx_esn.plans.quantization import read_quantization
from onnx_esn.plans.ratios import RATIOS_SCHEMA as RATIOS_SCHEMA
from onnx_esn.plans.ratios import PruningRatios as PruningRatios
from onnx_esn.plans.ratios import read_ratios
from onnx_esn.plans.reading import Reader, read_document
from onnx_esn.plans.spatial import SPATIAL_SCHEMA as SPATIAL_SCHEMA
from onnx_esn.plans.spatial import SpatialEntry as SpatialEntry
from onnx_esn.plans.spatial import SpatialPlan as SpatialPlan
from onnx_esn.plans.spatial import read_spatial

Plan = PruningPlan | QuantizationPlan | SpatialPlan
_P = TypeVar("_P", PruningPlan, QuantizationPlan, PruningRatios, SpatialPlan)
_KINDS: dict[type, tuple[str, Any]] = {
    PruningPlan: (PRUNING_SCHEMA, read_pruning),
    QuantizationPlan: (QUANTIZATION_SCHEMA, read_quantization),
    PruningRatios: (RATIOS_SCHEMA, read_ratios),
    SpatialPlan: (SPATIAL_SCHEMA, read_spatial),
}


def load_plan(source: str | Path | _P, kind: type[_P]) -> _P:
    """Read a plan file of the expected kind; a plan object is returned as it is.

    Raises:
        PlanError: the file is missing, not JSON, of another kind, or a field is missing or wrong.
    """
    if isinstance(source, kind):
        return source
    return parse_plan(read_document(str(source)), kind, str(source))


def load_pruning(
    source: str | Path | PruningPlan | PruningRatios,
) -> PruningPlan | PruningRatios:
    """Read what `prune --plan` takes: a plan to replay, or ratios to follow; raises `PlanError`."""
    if isinstance(source, PruningPlan | PruningRatios):
        return source
    document = read_document(source)
    # Written by hand, it may leave the schema out.
    fields = document if isinstance(document, Mapping) else {}
    guess = RATIOS_SCHEMA if "ratios" in fields else PRUNING_SCHEMA
    if fields.get("schema", guess) == RATIOS_SCHEMA:
        return parse_plan(document, PruningRatios, str(source))
    return parse_plan(document, PruningPlan, str(source))


def load_spatial(source: object) -> SpatialPlan | None:
    """Read what `prune --plan` takes where it is a spatial plan, else None; raises `PlanError`."""
    if isinstance(source, SpatialPlan):
        return source
    if not isinstance(source, str | Path):
        return None
    document = read_document(source)
    if not isinstance(document, Mapping) or document.get("schema") != SPATIAL_SCHEMA:
        return None
    return parse_plan(document, SpatialPlan, str(source))


def parse_plan(document: Any, kind: type[_P], where: str = "plan") -> _P:
    """Build a plan from a parsed JSON document; raises `PlanError` naming the wrong field."""
    if not isinstance(document, Mapping):
        raise PlanError(f"{where}: a plan is a JSON object")
    schema, build = _KINDS[kind]
    # A plan written by hand may leave the schema out.
    if document.get("schema", schema) != schema:
        raise PlanError(f"{where}: schema is {document['schema']!r}, expected {schema!r}")
    plan = build(document, Reader(where))
    assert isinstance(plan, kind)
    return plan
