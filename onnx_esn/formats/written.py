"""What a format's writer hands back: the model as it is stored, and what became of each layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import onnx


@dataclass(frozen=True)
class LayerFormat:
    """How the weight of one layer is stored.

    Attributes:
        name: of the layer.
        form: the form in a word or two, such as `int4`, `int4+Add`, `Quant` or `float`.
        type: element type of the stored tensor, such as `int4`, `int8` or `float32`.
        bytes: that the weight takes as stored, with its scales and offsets. A tensor that several
            layers share is counted at the first.
        reason: why it is stored so where that needs a reason (a weight left as floats), else "".
    """

    name: str
    form: str
    type: str
    bytes: int
    reason: str = ""

    def to_document(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return {
            "layer": self.name,
            "form": self.form,
            "type": self.type,
            "bytes": self.bytes,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Written:
    """A model in one of the `FORMATS`.

    Attributes:
        model: the new model; the one it was made from is untouched.
        layers: one entry per layer with a stored weight, in the graph's order.
        notes: what else was done, one clear line each (an opset raised, a weight left as floats).
    """

    model: onnx.ModelProto
    layers: tuple[LayerFormat, ...]
    notes: tuple[str, ...] = ()

    def forms(self) -> dict[str, int]:
        """Number of layers of each form, most frequent first."""
        return dict(Counter(layer.form for layer in self.layers).most_common())
