"""The BatchNormalization that directly follows a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.layers import Layer
from onnx_esn.numerics.signal_norm import batchnorm_gain

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BatchNorm:
    """Parameters of a BatchNormalization, each (C,): y = γ·(x − μ)/√(σ² + ε) + β."""

    gamma: Floats
    beta: Floats
    mean: Floats
    variance: Floats
    epsilon: float

    @property
    def gain(self) -> Floats:
        """The factor γ/√(σ² + ε) (C,) that it applies to each channel."""
        return batchnorm_gain(self.gamma, self.variance, self.epsilon)


def batchnorm_after(
    model: onnx.ModelProto,
    readers: Mapping[str, Sequence[int]],
    constants: Constants,
    layer: Layer,
) -> BatchNorm | None:
    """Return the BatchNormalization that alone reads the layer's output, or None.

    None also where it normalises another axis than the filters', is in training mode, or has
    parameters that are not constant or not usable (a variance below 0, a NaN).
    """
    return batchnorm_of(model, readers, constants, layer.output, layer)


def batchnorm_of(
    model: onnx.ModelProto,
    readers: Mapping[str, Sequence[int]],
    constants: Constants,
    tensor: str,
    layer: Layer,
) -> BatchNorm | None:
    """Return that which alone reads a tensor that is laid out as the layer's output, or None."""
    found = readers.get(tensor, ())
    if len(found) != 1 or found[0] < 0 or layer.channel_axis != 1:
        return None
    node = model.graph.node[found[0]]
    if node.op_type != "BatchNormalization" or list(node.input).count(tensor) != 1:
        return None
    attrs = attributes(node)
    if attrs.get("training_mode", 0) or any(name not in constants for name in node.input[1:5]):
        return None
    values = [constants.value(name).astype(np.float64) for name in node.input[1:5]]
    if any(v.shape != (layer.filters,) or not np.isfinite(v).all() for v in values):
        return None
    gamma, beta, mean, variance = values
    norm = BatchNorm(gamma, beta, mean, variance, float(attrs.get("epsilon", 1e-5)))
    return norm if (norm.variance >= 0).all() and (norm.variance + norm.epsilon > 0).all() else None
