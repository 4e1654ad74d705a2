"""What a layer with weights reads: its input, its weights, and which taps meet padding."""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.inputs import data_inputs, declared_shape
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.window import tap_coverage

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def is_plain(it: Layer) -> bool:
    """Whether a layer is a convolution or a product with one matrix."""
    known = it.op in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    return known and len(it.weight_shape) == 2 + len(it.kernel)


def contracted(analysis: Analysis, it: Layer) -> tuple[str, int]:
    """The tensor that a layer reads, and the axis it contracts."""
    node = analysis.model.graph.node[it.index]
    data, axis = node.input[1 - it.slot] if not it.kernel else node.input[0], 1
    if it.op == "Gemm":
        turned = attributes(node).get("transA" if it.slot == 1 else "transB", 0)
        axis = int(bool(turned)) ^ int(it.slot == 1)
    elif it.op == "MatMul":
        rank = len(analysis.facts.shapes[data])
        axis = rank - 1 if it.slot == 1 else rank - 2
    return data, axis


def filter_rows(analysis: Analysis, it: Layer) -> NDArray[np.generic]:
    """Weights (M, C/groups, taps) of a layer, as a float type of numpy's own."""
    W = it.as_filters(analysis.constants.value(it.weight))
    if W.dtype.kind != "f":
        W = W.astype(np.float64)
    return W.reshape(it.filters, -1, math.prod(it.kernel))


def settled_taps(analysis: Analysis, it: Layer) -> tuple[Floats, Mask]:
    """Per kernel tap, the share of outputs at which it meets the input, and whether that is
    all or nothing at every size that the model's inputs can have.
    """
    taps = math.prod(it.kernel)
    if not it.kernel or it.output_shape is None:
        return np.ones(taps), np.full(taps, not it.kernel)
    node = analysis.model.graph.node[it.index]
    attrs = attributes(node)
    coverage = np.ones((taps,))
    for facts in (analysis.facts, analysis.other):
        source, out = facts.shapes.get(node.input[0]), facts.shapes.get(it.output)
        if source is None or out is None:
            return coverage, np.zeros(taps, np.bool_)
        coverage = np.minimum(coverage, tap_coverage(attrs, it, source, out).reshape(-1))
    whole = coverage == 1
    data = node.input[0]
    if (
        _fixed(analysis.model)
        and analysis.facts.shapes[data][2:] == analysis.other.shapes[data][2:]
    ):
        whole |= coverage == 0
    elif it.op == "Conv":
        padded = any(attrs.get("pads", ())) or attrs.get("auto_pad", b"NOTSET") not in (
            b"NOTSET",
            b"VALID",
        )
        whole &= not padded
    return coverage, whole


def _fixed(model: onnx.ModelProto) -> bool:
    """Whether the batch is the only axis of the inputs that may change."""
    shapes = [declared_shape(info) for info in data_inputs(model)]
    return all(s is not None and all(isinstance(d, int) for d in s[1:]) for s in shapes)


def gemm_alpha(analysis: Analysis, it: Layer) -> float:
    """The factor of a Gemm on the product."""
    if it.op != "Gemm":
        return 1.0
    return float(attributes(analysis.model.graph.node[it.index]).get("alpha", 1.0))
