"""What is expected behind a layer, and behind a BatchNormalization."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from onnx_esn.graph.channels.moments import Expectation
from onnx_esn.graph.channels.propagation import along
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import EvaluationError, attributes
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.node_names import describe
from onnx_esn.graph.window import tap_coverage


def layer_expectation(
    node: onnx.NodeProto,
    layer: Layer,
    source: Expectation | None,
    constants: Constants,
    shapes: Mapping[str, Shape],
) -> Expectation:
    """Zero filters give their bias; depthwise filters pass a mean on; the rest is unknown."""
    rows = layer.as_filters(constants.value(layer.weight))
    zero = np.asarray(~rows.any(axis=1), np.bool_)
    bias = np.zeros(layer.filters)
    if layer.bias and layer.bias in constants:
        scale = float(attributes(node).get("beta", 1.0)) if node.op_type == "Gemm" else 1.0
        value = constants.value(layer.bias).astype(np.float64) * scale
        bias = np.broadcast_to(value.reshape(-1), layer.filters)
    elif layer.bias:
        zero[:] = False
    rank = len(shapes[node.output[0]])
    axis = layer.channel_axis
    mean = np.where(zero, bias, np.nan)
    variance = np.where(zero, 0.0, np.nan)
    if layer.depthwise and layer.op == "Conv" and source is not None and source.mean.ndim == rank:
        shape = shapes[node.input[0]]
        out = shapes[node.output[0]]
        coverage = tap_coverage(attributes(node), layer, shape, out)
        taps = rows.astype(np.float64) @ coverage.reshape(-1)
        repeat = layer.filters // layer.groups
        m, v = (np.repeat(x, repeat) for x in source.channels(layer.channels_in))
        still = (v == 0) & ((coverage == 1).all() | (m == 0))
        mean = np.where(zero, bias, m * taps + bias)
        variance = np.where(zero | still, 0.0, np.nan)
    return Expectation(along(mean, axis, rank), along(variance, axis, rank))


def norm_expectation(
    node: onnx.NodeProto,
    before: Expectation | None,
    constants: Constants,
    shapes: Mapping[str, Shape],
) -> Expectation:
    """N(β, γ²) behind a BatchNormalization, but for channels that are constant before it."""
    names = node.input[1:5]
    gamma, beta, mean, var = (constants.value(n).astype(np.float64) for n in names)
    if not (var >= 0).all():  # NaN too
        raise EvaluationError(f"{describe(node)}: its variances are not all 0 or above")
    gain = gamma / np.sqrt(var + attributes(node).get("epsilon", 1e-5))
    rank = len(shapes[node.output[0]])
    out_mean, out_var = beta.copy(), gamma**2
    if before is not None:
        m, v = before.channels(beta.size)
        constant = v == 0
        out_mean = np.where(constant, gain * (m - mean) + beta, out_mean)
        out_var = np.where(constant, 0.0, out_var)
    return Expectation(along(out_mean, 1, rank), along(out_var, 1, rank))
