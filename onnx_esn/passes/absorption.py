"""What a removed channel still sent to its consumers goes into their biases.

A removed filter still emits act(β) behind its BatchNormalization, and on average E[act(BN(x))].
A consumer with weights W read it with Σ_taps W; that times the expected value is added to its bias.
Where zero padding meets a tap, only the share of output positions whose tap lies inside counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnx_esn.graph.channel_groups import Analysis
from onnx_esn.graph.channel_labels import Mask
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.expectation import expectations
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.movement import expand
from onnx_esn.graph.shapes import Shape
from onnx_esn.passes.base import Skipped
from onnx_esn.plans import FoldedConstant

Floats = NDArray[np.float64]
MODES = ("none", "constant", "mean")


def consumed_tensors(analysis: Analysis, removed: Mask) -> dict[str, int]:
    """Tensors whose channel means are needed, with their channel axis."""
    return {
        name: axis
        for _, name, axis in _consumers(analysis)
        if removed[analysis.propagation.labels[name]].any()
    }


def _consumers(analysis: Analysis) -> list[tuple[Layer, str, int]]:
    """(layer, tensor it contracts, contracted axis) for layers that read labels."""
    nodes = analysis.model.graph.node
    reads = {c.node for c in analysis.propagation.claims if c.role == "input"}
    result = []
    for layer in find_layers(analysis.model, analysis.constants, analysis.facts):
        if layer.index not in reads:
            continue
        node = nodes[layer.index]
        attrs = attributes(node)
        data = node.input[1 - layer.slot] if layer.slot <= 1 else node.input[0]
        rank = len(analysis.facts.shapes[data])
        if layer.op == "Gemm":
            turned = attrs.get("transA" if layer.slot == 1 else "transB", 0)
            axis = int(bool(turned)) ^ int(layer.slot == 1)
        elif layer.op == "MatMul":
            axis = rank - 1 if layer.slot == 1 else rank - 2
        else:
            data, axis = node.input[0], 1
        result.append((layer, data, axis))
    return result


def fold_constants(
    analysis: Analysis,
    removed: Mask,
    mode: str,
    measured: Mapping[str, Floats] | None = None,
) -> tuple[tuple[FoldedConstant, ...], tuple[Skipped, ...]]:
    """Biases that stand for the removed channels.

    Args:
        analysis: the original model.
        removed: per label, whether it goes.
        mode: "none"; "constant": channels that are exactly constant; "mean": expected values.
        measured: channel means by tensor, where they were measured (mode "mean").

    Returns:
        The additions to the consumers' biases (for the filters that stay), and what could not be
        taken over: channels whose mean is unknown, constants that zero padding meets.
    """
    if mode == "none" or not removed.any():
        return (), ()
    closed = expectations(analysis) if mode == "constant" or measured is None else {}
    folded: list[FoldedConstant] = []
    skipped: list[Skipped] = []
    first = analysis.first_labels()
    for layer, data, axis in _consumers(analysis):
        shape = analysis.facts.shapes[data]
        labels = analysis.propagation.labels[data]
        gone = removed[expand(labels, shape, [axis])].reshape(-1)
        if (
            gone.size != shape[axis]
            or not gone.any()
            or len(layer.weight_shape) != (2 + len(layer.kernel))
        ):
            continue
        value = np.full(gone.size, np.nan)
        if measured is not None and data in measured:
            value = measured[data]
        elif data in closed:
            e = closed[data]
            value = expand(e.mean, shape, [axis]).reshape(-1)
            if mode == "constant":
                still = expand(e.variance, shape, [axis]).reshape(-1)
                value = np.where(still == 0, value, 0.0)
        unknown = gone & np.isnan(value)
        if unknown.any() and mode == "mean":
            skipped.append(
                Skipped(
                    layer.name,
                    f"the mean of {int(unknown.sum())} removed input channels is unknown and was "
                    "dropped; give images to measure it",
                )
            )
        value = np.where(gone & ~np.isnan(value), value, 0.0)
        if not value.any():
            continue
        coverage = _coverage(analysis, layer, shape)
        if mode == "constant" and (coverage < 1).any():
            skipped.append(
                Skipped(layer.name, "zero padding meets an absorbed constant: inexact at borders")
            )
        delta = _effect(analysis, layer, value, coverage)
        start = first[layer.index]
        delta = delta[~removed[start : start + layer.filters]]
        if delta.any():
            folded.append(FoldedConstant(layer.name, tuple(float(v) for v in delta)))
    return tuple(folded), tuple(skipped)


def _effect(analysis: Analysis, layer: Layer, value: Floats, coverage: Floats) -> Floats:
    """Σ over channels and taps of W · value · coverage, (M,)."""
    W = layer.as_filters(analysis.constants.value(layer.weight)).astype(np.float64)
    taps = math.prod(layer.kernel)
    per_channel = W.reshape(layer.filters, -1, taps) @ coverage.reshape(-1)
    share = per_channel.shape[1]
    if layer.groups == 1:
        delta = per_channel @ value
    else:
        rows = per_channel.reshape(layer.groups, -1, share)
        delta = np.einsum("gmc,gc->gm", rows, value.reshape(layer.groups, share)).reshape(-1)
    if layer.op == "Gemm":
        delta = delta * float(attributes(analysis.model.graph.node[layer.index]).get("alpha", 1.0))
    return np.asarray(delta, np.float64)


def _coverage(analysis: Analysis, layer: Layer, source: Shape) -> Floats:
    """Per kernel tap, the share of output positions at which it meets a real input."""
    if not layer.kernel:
        return np.ones(1)
    out = layer.output_shape
    if out is None:
        return np.ones(math.prod(layer.kernel))
    attrs = attributes(analysis.model.graph.node[layer.index])
    rank = len(layer.kernel)
    strides = attrs.get("strides") or [1] * rank
    dilations = attrs.get("dilations") or [1] * rank
    result: Floats = np.ones(())
    for k in range(rank):
        i, o = source[2 + k], out[2 + k]
        before = _pad_before(attrs, k, rank, i, o, layer.kernel[k], strides[k], dilations[k])
        taps = np.arange(layer.kernel[k]) * dilations[k]
        if layer.op == "Conv":
            at = np.arange(o)[:, None] * strides[k] - before + taps
            share = ((at >= 0) & (at < i)).sum(axis=0) / o
        else:
            at = np.arange(i)[:, None] * strides[k] - before + taps
            share = ((at >= 0) & (at < o)).sum(axis=0) / o
        result = np.multiply.outer(result, share)
    return result


def _pad_before(
    attrs: Mapping[str, object], k: int, rank: int, i: int, o: int, kernel: int, s: int, d: int
) -> int:
    mode = attrs.get("auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        total = max(0, (o - 1) * s + (kernel - 1) * d + 1 - i)
        return total // 2 if mode == b"SAME_UPPER" else total - total // 2
    if mode == b"VALID":
        return 0
    pads = attrs.get("pads")
    return int(pads[k]) if isinstance(pads, list) else 0
