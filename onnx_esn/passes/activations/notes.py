"""What a user should know of a model with quantized activations."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import onnx

from onnx_esn.formats.activations_grid import Kind
from onnx_esn.graph.readers import readers
from onnx_esn.passes.activations.placement import Placement
from onnx_esn.passes.activations.weights import IntegerLayer
from onnx_esn.passes.base import Skipped

log = logging.getLogger(__name__)


def warn_of_shared(placement: Placement, model: onnx.ModelProto, kind: Kind) -> None:
    """On x86 onnxruntime turns int8 to uint8 first, which it only does between two nodes."""
    users = readers(model)
    shared = sum(len(users.get(name, ())) > 1 for name in placement.tensors)
    if kind.name == "int8" and shared:
        log.warning(
            "int8 activations: %d tensors are read more than once; onnxruntime on x86 computes "
            "around these in float, and uint8 runs faster there",
            shared,
        )


def rounding_notes(before: Sequence[IntegerLayer], after: Sequence[IntegerLayer]) -> list[Skipped]:
    """Whose weights are not exactly what they were."""
    notes = []
    for x, done in zip(before, after, strict=True):
        count, small = int(x.rounded.sum()), int((done.rounded & ~x.rounded).sum())
        if count and not x.on_grid:
            why = "its weights lie on no grid: rounded to the nearest int8"
        elif count:
            why = (
                f"codes of {count} filters do not fit int8 (8-bit mid-rise): rounded to the "
                f"nearest; 7 bits, or mid-tread, are kept exactly"
            )
        elif small:
            why = f"{small} filters are too small beside their biases for their step: rounded"
        else:
            continue
        notes.append(Skipped(x.layer.name, why))
    return notes
