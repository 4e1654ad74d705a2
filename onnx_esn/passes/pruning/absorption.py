"""What a removed channel still sent to its consumers goes into their biases.

A removed filter still emits act(β) behind its BatchNormalization, and on average E[act(BN(x))].
A consumer with weights W read it with Σ_taps W; that times the expected value is added to its bias.
Where zero padding meets a tap, only the share of output positions whose tap lies inside counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_esn.graph.channels.expectation import expectations
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels, Mask
from onnx_esn.graph.channels.propagation import Claim, Product
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.movement import expand
from onnx_esn.graph.window import tap_coverage
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layers.reads import contracted, gemm_alpha, settled_taps
from onnx_esn.plans import FoldedConstant

Floats = NDArray[np.float64]
MODES = ("none", "constant", "mean")
ON_AVERAGE = "meets an absorbed constant: right on average only"
_AT_ONCE = 1 << 17  # elements


@dataclass(frozen=True)
class _Reader:
    """A layer that reads labels: the tensor it contracts, and along which axis."""

    layer: Layer
    data: str
    axis: int


def consumed_tensors(analysis: Analysis, removed: Mask) -> dict[str, int]:
    """Tensors whose channel means are needed, with their channel axis."""
    return {
        r.data: r.axis
        for r in _readers(analysis)
        if removed[analysis.propagation.labels[r.data]].any()
    }


def varying_labels(analysis: Analysis) -> list[Labels]:
    """Labels that somewhere reach a consumer as anything but an exact constant."""
    closed = expectations(analysis)
    labels = analysis.propagation.labels
    known = {r.layer.index for r in _readers(analysis)}
    found = [
        c.labels for c in analysis.propagation.claims if c.role == "input" and c.node not in known
    ]
    found += [product.labels for product in analysis.propagation.products]
    for r in _readers(analysis):
        if r.data not in closed:
            found.append(labels[r.data])
            continue
        shape = analysis.facts.shapes[r.data]
        _, variance = closed[r.data].along(r.axis, shape[r.axis])
        found.append(_vector(labels[r.data], shape, r.axis)[variance != 0])
    return found


def _readers(analysis: Analysis) -> list[_Reader]:
    """Layers that contract labels with a matrix or a convolution."""
    reads = {c.node for c in analysis.propagation.claims if c.role == "input"}
    result = []
    for layer in analysis.layers:
        if (
            layer.op == "Einsum"
            or layer.index not in reads
            or len(layer.weight_shape) != 2 + len(layer.kernel)
        ):
            continue
        result.append(_Reader(layer, *contracted(analysis, layer)))
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
    closed = expectations(analysis) if measured is None else {}
    folded: list[FoldedConstant] = []
    skipped: list[Skipped] = list(_lost(analysis, removed)) if mode == "mean" else []
    first = analysis.first_labels
    for r in _readers(analysis):
        layer = r.layer
        shape = analysis.facts.shapes[r.data]
        gone = removed[_vector(analysis.propagation.labels[r.data], shape, r.axis)]
        if not gone.any():
            continue
        value = np.full(gone.size, np.nan)
        if measured is not None and r.data in measured:
            value = measured[r.data]
        elif r.data in closed:
            value, variance = closed[r.data].along(r.axis, shape[r.axis])
            if mode == "constant":
                value = np.where(variance == 0, value, 0.0)
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
        coverage = _coverage(analysis, layer)
        if mode == "constant" and not settled_taps(analysis, layer)[1].all():
            what = "stride" if layer.op == "ConvTranspose" else "zero padding"
            skipped.append(Skipped(layer.name, f"{what} {ON_AVERAGE}"))
        delta = _effect(analysis, layer, value, coverage)
        start = first[layer.index]
        delta = delta[~removed[start : start + layer.filters]]
        if delta.any():
            folded.append(FoldedConstant(layer.name, tuple(float(v) for v in delta)))
    return tuple(folded), tuple(skipped)


def _other_reads(analysis: Analysis) -> list[Claim | Product]:
    """What reads labels and has no bias that could take anything over."""
    p = analysis.propagation
    known = {r.layer.index for r in _readers(analysis)}
    claims = [c for c in p.claims if c.role == "input" and c.node not in known]
    return [*claims, *p.products]


def _lost(analysis: Analysis, removed: Mask) -> Iterator[Skipped]:
    for read in _other_reads(analysis):
        count = int(np.unique(read.labels[removed[read.labels]]).size)
        if count:
            op = analysis.model.graph.node[read.node].op_type
            yield Skipped(
                analysis.names[read.node],
                f"what {count} removed channels sent to this {op} was dropped: it has no bias to "
                "take it over",
            )


def _vector(x: Labels, shape: Shape, axis: int) -> Labels:
    """Compact labels that change along one axis only, as a vector of full length."""
    return np.moveaxis(expand(x, shape, [axis]), axis, 0).reshape(shape[axis], -1)[:, 0]


def _effect(analysis: Analysis, layer: Layer, value: Floats, coverage: Floats) -> Floats:
    """Σ over channels and taps of W · value · coverage, (M,)."""
    W = layer.as_filters(analysis.constants.value(layer.weight))
    taps = math.prod(layer.kernel)
    share = W.shape[1] // taps
    if layer.groups == 1:
        effect = np.outer(value, coverage).reshape(-1)
        rows = max(1, _AT_ONCE // effect.size)  # W may fill most of the memory
        parts = [W[i : i + rows].astype(np.float64) @ effect for i in range(0, len(W), rows)]
        delta = np.concatenate(parts)
    else:
        per_channel = W.astype(np.float64).reshape(layer.filters, -1, taps) @ coverage.reshape(-1)
        grouped = per_channel.reshape(layer.groups, -1, share)
        delta = np.einsum("gmc,gc->gm", grouped, value.reshape(layer.groups, share)).reshape(-1)
    if layer.op == "Gemm":
        delta = delta * gemm_alpha(analysis, layer)
    return np.asarray(delta, np.float64)


def _coverage(analysis: Analysis, layer: Layer) -> Floats:
    """Per kernel tap, the share of output positions at which it meets a real input."""
    node = analysis.model.graph.node[layer.index]
    shapes = analysis.facts.shapes
    source, out = shapes.get(node.input[0]), shapes.get(layer.output)
    if not layer.kernel or source is None or out is None:
        return np.ones(math.prod(layer.kernel))
    return tap_coverage(attributes(node), layer, source, out)
