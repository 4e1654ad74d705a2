"""Which filter gets how many bits, and which step size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from onnx_esn.plans.reading import Reader, write_document

QUANTIZATION_SCHEMA = "onnx-esn/quantization-plan/1"


@dataclass(frozen=True)
class LayerQuantization:
    """Bits and step size of each filter of one layer.

    Attributes:
        layer: name of the layer's node.
        bits: 0..8 per filter; 0 means that the filter is pruned (all codes 0).
        step: step size Δ per filter; 0 where bits are 0.
    """

    layer: str
    bits: tuple[int, ...]
    step: tuple[float, ...]


@dataclass(frozen=True)
class QuantizationPlan:
    """A quantization decision."""

    layers: tuple[LayerQuantization, ...]
    excluded: tuple[str, ...] = field(default=())

    def to_json(self) -> str:
        """One JSON document, a line per layer."""
        lists: dict[str, list[Any]] = {
            "layers": [asdict(x) for x in self.layers],
            "excluded": list(self.excluded),
        }
        return write_document(QUANTIZATION_SCHEMA, lists)


def read_quantization(document: Mapping[str, Any], read: Reader) -> QuantizationPlan:
    """Build the plan from a parsed document; raises `PlanError`."""
    read.known(document, ("schema", "layers", "excluded"))
    return QuantizationPlan(
        tuple(
            LayerQuantization(
                read.text(x, "layer"),
                tuple(read.integers(x, "bits")),
                read.numbers(x, "step"),
            )
            for x in read.entries(document, "layers", required=True)
        ),
        read.texts(document, "excluded"),
    )
