"""Which filter gets how many bits, and which step size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from onnx_esn.errors import PlanError
from onnx_esn.plans.reading import Reader, write_document

QUANTIZATION_SCHEMA = "onnx-esn/quantization-plan/1"
_KEYS = (
    "schema", "layers", "excluded", "ranges", "rotated", "quantizer", "activations",
    "rotation_seed",
)  # fmt: skip
MID_RISE = "mid-rise"  # what a plan means that names no quantizer


@dataclass(frozen=True)
class LayerQuantization:
    """Bits and step size of each filter of one layer.

    Attributes:
        layer: name of the layer's node.
        bits: 0..8 per filter; 0 means that the filter is pruned (all codes 0).
        step: step size Δ per filter; 0 where bits are 0.
        codes: the codes themselves, as text of `encode_codes`; None: the quantizer's codes of the
            layer's weights at these bits and steps.
        bias: what is added to the layer's bias, one number per filter; None: nothing.
        offset: what is added to the codes of each filter, in steps; multiples of 2^-12. None: 0.
    """

    layer: str
    bits: tuple[int, ...]
    step: tuple[float, ...]
    codes: str | None = None
    bias: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None

    def to_entry(self) -> dict[str, Any]:
        """The fields that say something, in the order of the JSON document."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class ActivationRange:
    """What the integers of one tensor reach from and to."""

    tensor: str
    low: float
    high: float


@dataclass(frozen=True)
class ActivationRanges:
    """Ranges of quantized activations.

    Attributes:
        kind: their integers, such as "uint4".
        ranges: of the tensors that have one of their own, in graph order.
    """

    kind: str
    ranges: tuple[ActivationRange, ...]

    def by_tensor(self) -> dict[str, tuple[float, float]]:
        """(lowest, highest) by tensor."""
        return {x.tensor: (x.low, x.high) for x in self.ranges}


@dataclass(frozen=True)
class Rotation:
    """The basis that linear tensors were brought into before (`onnx_esn.rotate`).

    Attributes:
        seed: that of the turns.
        layers: all whose weights it changed.
    """

    seed: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class QuantizationPlan:
    """A quantization decision.

    Attributes:
        layers: what each layer gets; a layer that is not named stays as it is.
        excluded: the patterns that were excluded, for people.
        quantizer: whose codes the layers get, `mid-rise` or `mid-tread`.
        activations: ranges of the activations, where they are quantized as well.
        rotation: what is done to the model first, where anything is.
    """

    layers: tuple[LayerQuantization, ...]
    excluded: tuple[str, ...] = field(default=())
    quantizer: str = MID_RISE
    activations: ActivationRanges | None = None
    rotation: Rotation | None = None

    def to_json(self) -> str:
        """One JSON document, a line per layer."""
        lists: dict[str, list[Any]] = {
            "layers": [x.to_entry() for x in self.layers],
            "excluded": list(self.excluded),
        }
        # Left out where it is the default: then versions that do not know the field read the plan.
        named = {} if self.quantizer == MID_RISE else {"quantizer": json.dumps(self.quantizer)}
        if self.activations is not None:
            lists["ranges"] = [asdict(x) for x in self.activations.ranges]
            named["activations"] = json.dumps(self.activations.kind)
        if self.rotation is not None:
            lists["rotated"] = list(self.rotation.layers)
            named["rotation_seed"] = json.dumps(self.rotation.seed)
        return write_document(QUANTIZATION_SCHEMA, lists, named)


def read_quantization(document: Mapping[str, Any], read: Reader) -> QuantizationPlan:
    """Build the plan from a parsed document; raises `PlanError`."""
    read.known(document, _KEYS)
    return QuantizationPlan(
        tuple(
            LayerQuantization(
                read.text(x, "layer"),
                tuple(read.integers(x, "bits")),
                read.numbers(x, "step"),
                None if x.get("codes") is None else read.text(x, "codes"),
                None if x.get("bias") is None else read.numbers(x, "bias"),
                None if x.get("offset") is None else read.numbers(x, "offset"),
            )
            for x in read.entries(document, "layers", required=True)
        ),
        read.texts(document, "excluded"),
        MID_RISE if document.get("quantizer") is None else read.text(document, "quantizer"),
        _activations(document, read),
        _rotation(document, read),
    )


def _rotation(document: Mapping[str, Any], read: Reader) -> Rotation | None:
    if document.get("rotation_seed") is None:
        return None
    return Rotation(read.integer(document, "rotation_seed"), read.texts(document, "rotated"))


def _activations(document: Mapping[str, Any], read: Reader) -> ActivationRanges | None:
    if document.get("activations") is None:
        return None
    ranges = []
    for x in read.entries(document, "ranges"):
        found = ActivationRange(
            read.text(x, "tensor"), read.number(x, "low"), read.number(x, "high")
        )
        if not found.low <= 0 <= found.high:
            raise PlanError(f"{read.where}: the range of {found.tensor!r} must hold 0")
        ranges.append(found)
    return ActivationRanges(read.text(document, "activations"), tuple(ranges))
