"""A quantization plan for bits that are decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import Layer
from onnx_esn.numerics.quantizers import MID_RISE, Quantizer
from onnx_esn.passes.layers.costs import InputShape, measured_view, view_layers
from onnx_esn.passes.quantizing.bit_choice import given_choice
from onnx_esn.passes.quantizing.quantizable import find_quantizable
from onnx_esn.plans import LayerQuantization, QuantizationPlan

Integers = npt.NDArray[np.int64]


def bit_plan(
    model: onnx.ModelProto,
    bits: Mapping[str, Integers],
    left: Mapping[str, Integers],
    *,
    exclude: Sequence[str] = (),
    quantizer: Quantizer = MID_RISE,
    input_shape: InputShape | None = None,
) -> QuantizationPlan:
    """Plain codes at these bits.

    Args:
        model: perhaps pruned since the bits were decided.
        bits: by layer name (M,).
        left: by layer name, which of those filters the model has left; all where it is missing.
        exclude: patterns that the plan remembers.
        quantizer: the grid.
        input_shape: sizes of dynamic axes, for layers that only shapes show (Einsum).
    """
    view = view_layers(model, Facts(sizes={}), Constants(model))
    if not bits.keys() <= {layer.name for layer in view.layers}:
        view = measured_view(model, input_shape)
    entries = {}
    for job in find_quantizable(model, view)[0]:
        # A weight of several layers gets what the least of them may have.
        asked = [_left(bits[x.name], left, x) for x in job.layers if x.name in bits]
        if not asked:
            continue
        choice = given_choice(job, np.minimum.reduce(asked), quantizer)
        chosen = tuple(int(b) for b in choice.bits), tuple(float(s) for s in choice.step)
        entries.update({x.name: LayerQuantization(x.name, *chosen) for x in job.layers})
    ordered = tuple(entries[x.name] for x in view.layers if x.name in entries)
    return QuantizationPlan(ordered, tuple(exclude), quantizer.name)


def _left(bits: Integers, left: Mapping[str, Integers], layer: Layer) -> Integers:
    """The bits of the filters that the layer has left."""
    return bits if bits.size == layer.filters else bits[left[layer.name]]
