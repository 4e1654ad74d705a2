"""Format `fake`: the quantized weights Δ·W_int as floats, in the type the weights had.

The graph stays as it is and any runtime runs it; `inspect` reads the codes back from the values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.formats.weight_writing import WeightWriter
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layer_weight import Block
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.number_formats import EPSILON, round_to
from onnx_esn.graph.weights import Floats, StoredWeight, read_weight
from onnx_esn.numerics.midrise import decode


def write(
    model: onnx.ModelProto, layer: Layer, codes: npt.ArrayLike, step: npt.ArrayLike
) -> onnx.ModelProto:
    """Return a copy of the model in which the layer's weights are Δ·W_int.

    Whatever else reads the same tensor keeps the old values: the layer then gets a tensor of its
    own.

    Args:
        model: the model.
        layer: one of its layers, whose weight is not `locked`.
        codes: W_int (M, K), in the order of `Layer.as_filters`.
        step: Δ (M,).

    Raises:
        ValueError: the weight is computed in the graph or not stored as floats.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = Constants(copy)
    weight = read_weight(layer, constants)
    new, delta = np.asarray(codes, dtype=np.float64), np.asarray(step, dtype=np.float64)

    def values(block: Block) -> Floats:
        return quantized_block(weight, block, new[block.rows], delta[block.rows])

    WeightWriter(copy, constants).write_blocks([layer], weight, values)
    return copy


def quantized_values(weight: StoredWeight, codes: npt.ArrayLike, step: npt.ArrayLike) -> Floats:
    """Return Δ·W_int (M, K) rounded to the type of the weight.

    A filter that holds these codes at this step already, up to the last digit, stays as it is:
    writing what was read changes nothing.
    """
    new, delta = np.asarray(codes, dtype=np.float64), np.asarray(step, dtype=np.float64)
    values = np.empty(weight.shape)
    for block in weight.blocks():
        rows = block.rows
        values[rows] = quantized_block(weight, block, new[rows], delta[rows])
    return values


def quantized_block(weight: StoredWeight, block: Block, codes: Floats, step: Floats) -> Floats:
    """The same (m, K) for a few filters of the weight: codes (m, K), step (m,)."""
    values = round_to(decode(codes, step), weight.type)
    if weight.step is not None:
        now = weight.step[block.rows]
        near = np.abs(step - now) <= EPSILON[weight.type] * now
        there = near & (codes == block.codes).all(axis=1)
        values[there] = block.W[there]
    return values
