"""What the layers of a model read, and which of it they can do without."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels, line
from onnx_esn.graph.channels.propagation import Claim
from onnx_esn.graph.evaluate import EvaluationError
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.node_names import unique_names
from onnx_esn.graph.weights import read_weight
from onnx_esn.passes.exact.values import Floats, Ids
from onnx_esn.passes.exact.walk import Walk
from onnx_esn.passes.layers.reads import (
    contracted,
    filter_rows,
    gemm_alpha,
    is_plain,
    settled_taps,
)

Mask = NDArray[np.bool_]


@dataclass
class Reader:
    """A layer that reads channels with weights.

    A *slot* is an index of the weight's input axis. A grouped Conv has one set of slots for all its
    groups, so that a slot reads one channel in each group: a slot has one *cell* a group.

    Attributes:
        layer: the layer.
        axis: input axis of the weight.
        labels: label (n,) of each slot.
        cells: number (groups, share) of what each cell reads.
        read: whether a filter has weights other than 0 for a cell of its group, (M, share).
        exposed: the same, for the taps that zero padding meets.
        weights: sums (M, share) of the weights over all taps that always meet the input.
        filters: label (M,) of each filter.
        shared: whether a slot covers a cell of every group.
    """

    layer: Layer
    axis: int
    labels: Labels
    cells: Ids
    read: Mask
    exposed: Mask
    weights: Floats
    filters: Labels
    shared: bool
    _locked: str | None = field(default=None)

    def per_cell(self, marks: Mask, kept: Mask) -> Mask:
        """Whether a filter of the group that is `kept` (M,) is marked, (groups, share)."""
        groups = len(self.cells)
        marks = (marks & kept[:, None]).reshape(groups, -1, marks.shape[1])
        return np.asarray(marks.any(axis=1))

    def free_cells(self, constants: Floats, kept: Mask) -> tuple[Mask, Mask]:
        """Cells (groups, share) that no kept filter reads, and those that a bias can stand for.

        Args:
            constants: value (groups, share) of each cell; NaN where it is not constant.
            kept: the filters (M,) that stay.
        """
        unread = ~self.per_cell(self.read, kept)
        still = (constants == 0) | (~np.isnan(constants) & ~self.per_cell(self.exposed, kept))
        return unread, still

    def slots(self, cells: Mask) -> Mask:
        """Slots (n,) all of whose cells are marked."""
        return np.asarray(cells.all(axis=0)) if self.shared else cells.reshape(-1)

    def keys(self) -> NDArray[np.int64]:
        """Numbers (n,) that are equal where slots read equal values and can be added up."""
        if self.shared:
            return np.unique(self.cells, axis=1, return_inverse=True)[1].reshape(-1)
        groups = np.repeat(np.arange(len(self.cells)), self.cells.shape[1])
        table = np.stack([groups, self.cells.reshape(-1)])
        return np.unique(table, axis=1, return_inverse=True)[1].reshape(-1)

    def locked(self, analysis: Analysis) -> str:
        """Why its weights cannot be added up, or ""."""
        if self._locked is None:
            stored = read_weight(self.layer, analysis.constants)
            self._locked = stored.locked
            if not _in_source(analysis, self.layer):
                self._locked = "it is part of a fused operator, a function or a subgraph"
            elif not stored.locked and stored.codes is not None:
                self._locked = "its weights are quantized, and sums would not be"
        return self._locked


def _in_source(analysis: Analysis, layer: Layer) -> bool:
    """Whether the layer is a node of the model as it was given."""
    node = analysis.model.graph.node[layer.index]
    if analysis.source is analysis.model:
        return True
    found = zip(unique_names(analysis.source), analysis.source.graph.node, strict=True)
    return any(
        name == layer.name
        and (other.op_type, other.output[:1]) == (node.op_type, node.output[:1])
        and other.input[layer.slot] == layer.weight
        for name, other in found
    )


@dataclass(frozen=True)
class Reading:
    """All that reads channels.

    Attributes:
        readers: layers with a matrix or a convolution.
        bound: labels that something else reads: a product of activations, another operator's
            weights. Only where these weights are zero can the label go.
    """

    readers: list[Reader]
    bound: Labels


def find_readers(walk: Walk) -> Reading:
    """Everything that reads labels."""
    analysis = walk.analysis
    readers = []
    bound = [product.labels.reshape(-1) for product in analysis.propagation.products]
    for claim in analysis.propagation.claims:
        if claim.role == "input":
            layer = walk.layers.get(claim.node)
            reader = None if layer is None else _reader(walk, layer, claim)
            if reader is None:
                bound.append(_read_labels(analysis, claim))
            else:
                readers.append(reader)
    return Reading(readers, np.unique(np.concatenate([*bound, np.zeros(1, np.int64)])))


def _read_labels(analysis: Analysis, claim: Claim) -> Labels:
    """Labels of a claim whose slices are not all zero."""
    try:
        W = analysis.constants.value(claim.tensor) != 0
    except EvaluationError:
        return claim.labels.reshape(-1)
    flat = tuple(a for a, n in enumerate(claim.labels.shape) if n == 1)
    return claim.labels[np.asarray(W).any(axis=flat, keepdims=True)]


def _reader(walk: Walk, layer: Layer, claim: Claim) -> Reader | None:
    if not is_plain(layer) or claim.labels.size == 1:
        return None
    analysis = walk.analysis
    axis = next(a for a, n in enumerate(claim.labels.shape) if n > 1)
    data, along = contracted(analysis, layer)
    shape = analysis.facts.shapes[data]
    values = walk.view(data, [along], len(shape)).reshape(-1)
    if values.size != layer.channels_in:
        return None  # a size that depends on the data was guessed
    W = filter_rows(analysis, layer)
    coverage, whole = settled_taps(analysis, layer)
    sums = W[:, :, whole].astype(np.float64) @ coverage[whole]
    if layer.op == "Gemm":
        sums *= gemm_alpha(analysis, layer)
    first = analysis.first_labels[layer.index]
    return Reader(
        layer,
        axis,
        line(claim.labels, axis),
        values.reshape(layer.groups, -1),
        np.asarray((W != 0).any(axis=2)),
        np.asarray((W[:, :, ~whole] != 0).any(axis=2)),
        sums,
        np.arange(first, first + layer.filters),
        shared=layer.op == "Conv" and layer.groups > 1,
    )
