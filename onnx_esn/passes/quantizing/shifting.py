"""Move the outputs of layers by a constant for each filter, without new nodes where possible.

The running mean of a BatchNormalization behind takes it, μ′ = μ − shift, else the layer's bias. A
MatMul without an Add behind gets one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from onnx_esn.errors import VerificationError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.norms.batchnorm import BatchNorm, batchnorm_after
from onnx_esn.graph.norms.points import NormPoint, find_norm_points
from onnx_esn.graph.norms.rewriting import ModelWriter
from onnx_esn.graph.per_filter import trailing_axes
from onnx_esn.graph.readers import readers
from onnx_esn.graph.rewrite.bias import BiasDelta, add_to_biases
from onnx_esn.passes.base import copied

Floats = npt.NDArray[np.float64]


def shift_outputs(model: onnx.ModelProto, shifts: Mapping[str, Floats]) -> onnx.ModelProto:
    """A copy in which outputs of the named layers are moved by (M,).

    Raises:
        VerificationError: a bias or mean is not finite in its type; names it.
    """
    model = copied(model)
    constants = Constants(model)
    norms = {p.behind: p for p in find_norm_points(model).points if p.behind}
    users = readers(model)
    deltas: dict[str, BiasDelta] = {}
    means: list[tuple[NormPoint, BatchNorm, Floats]] = []
    for layer in find_layers(model, constants, Facts(sizes={})):
        shift = shifts.get(layer.name)
        if shift is None or not shift.any():
            continue
        norm = batchnorm_after(model, users, constants, layer)
        if norm is not None and layer.name in norms:
            means.append((norms[layer.name], norm, shift))
        else:
            deltas[layer.output] = _delta(layer, constants, shift)
    types = [constants.value(model.graph.node[p.index].input[3]).dtype for p, _, _ in means]
    writer = ModelWriter(model)
    writer.own_statistics([point for point, _, _ in means])
    for (point, norm, shift), dtype in zip(means, types, strict=True):
        with np.errstate(over="ignore"):  # an infinity is reported by the writer
            mean = (norm.mean - shift).astype(dtype)
        writer.set_statistics(point, mean, norm.variance.astype(dtype))
    writer.finish()
    with np.errstate(over="ignore"):  # an infinity is reported here
        result = add_to_biases(model, deltas)
    before = {tensor.name for tensor in model.graph.initializer}
    for tensor in result.graph.initializer:
        if tensor.name not in before:
            value = numpy_helper.to_array(tensor)
            if not np.isfinite(value.astype(np.float64)).all():
                raise VerificationError(f"{tensor.name}: it is not finite in {value.dtype}")
    return result


def _delta(layer: Layer, constants: Constants, shift: Floats) -> BiasDelta:
    element = onnx.helper.np_dtype_to_tensor_dtype(constants.value(layer.weight).dtype)
    return BiasDelta(shift, trailing_axes(layer), element)
