"""Which weights of a model can be quantized; why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.norms.batchnorm import BatchNorm, batchnorm_after
from onnx_esn.graph.parallel_nodes import parallel
from onnx_esn.graph.readers import readers
from onnx_esn.graph.weights import StoredWeight, path_outputs, read_weight
from onnx_esn.numerics.midrise import MAX_BITS
from onnx_esn.numerics.row_blocks import all_finite
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layers.costs import LayerView, not_counted
from onnx_esn.passes.layers.patterns import left_out

_SMALL = 1 << 20  # elements
# A filter of four float32 weights is recognised on any grid (`numerics.grid`); so are more filters
# of fewer, but not of one, which any step fits.
SHOWS_A_GRID = 4
_TOO_FEW = "it has too few weights for a grid to show, and they would cost as much as before"


class Weights:
    """The weights of a model's layers as they are asked for; of large ones it holds the last."""

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self._small: dict[str, StoredWeight] = {}
        self._last: tuple[str, StoredWeight] | None = None

    def of(self, layer: Layer) -> StoredWeight:
        """The weight of one layer."""
        if layer.name in self._small:
            return self._small[layer.name]
        if self._last is not None and self._last[0] == layer.name:
            return self._last[1]
        self._last = None  # before the next is read
        weight = read_weight(layer, self._constants)
        if weight.values.size <= _SMALL:
            self._small[layer.name] = weight
        else:
            self._last = (layer.name, weight)
        return weight


@dataclass(frozen=True)
class Job:
    """One stored weight and the layers that use it, alike.

    Attributes:
        layers: the layers, in graph order.
        weights: where their weight is read from.
        norm: the BatchNormalization behind the first of them, if that is its only one.
        macs_per_filter: MACs of one filter, summed over the layers; None where unknown.
    """

    layers: tuple[Layer, ...]
    weights: Weights
    norm: BatchNorm | None
    macs_per_filter: int | None

    @property
    def name(self) -> str:
        """Name of the first layer."""
        return self.layers[0].name

    @property
    def weight(self) -> StoredWeight:
        """Their weight; read when asked for, and held for the last one only."""
        return self.weights.of(self.layers[0])

    @property
    def most_bits(self) -> int:
        """Widest codes that the stored type can hold apart: 7 in bfloat16, else 8."""
        return MAX_BITS - 1 if self.weight.type == TensorProto.BFLOAT16 else MAX_BITS


def find_jobs(
    model: onnx.ModelProto,
    view: LayerView,
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
) -> tuple[list[Job], list[Skipped]]:
    """Sort the layers of a model into those that can be quantized and those that cannot.

    Args:
        model: the model.
        view: its layers.
        exclude: patterns on names of nodes and weights: what matches one stays as it is.
        only: such patterns; if any, what matches none stays as it is.

    Raises:
        OptionError: a pattern matches no layer.
    """
    excluded = left_out(view.layers, only, exclude)
    skipped = not_counted(model, view)
    users = readers(model)
    shared: dict[str, list[Layer]] = {}
    for layer in view.layers:
        tensor = path_outputs(layer, view.constants)[0]
        shared.setdefault(tensor, []).append(layer)
    jobs = []
    weights = Weights(view.constants)
    for uses in shared.values():
        layers = tuple(uses)
        reason = _refusal(uses, weights, excluded)
        if reason:
            skipped += [Skipped(x.name, excluded.get(x.name, reason)) for x in layers]
            continue
        norms = [batchnorm_after(model, users, view.constants, x) for x in layers]
        macs = [x.macs_per_filter for x in layers]
        known = None if None in macs else sum(m or 0 for m in macs)
        jobs.append(Job(layers, weights, norms[0] if len(norms) == 1 else None, known))
    order = {layer.name: i for i, layer in enumerate(view.layers)}
    return jobs, sorted(skipped, key=lambda s: order.get(s.node, len(order)))


def at_once(model: onnx.ModelProto, jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """Jobs whose layers can be solved together, and those whose layers wait for each other."""
    found = parallel(model, [[layer.index for layer in job.layers] for job in jobs])
    together = [job for job, ok in zip(jobs, found, strict=True) if ok]
    return together, [job for job, ok in zip(jobs, found, strict=True) if not ok]


def find_quantizable(
    model: onnx.ModelProto,
    view: LayerView,
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
) -> tuple[list[Job], list[Skipped]]:
    """`find_jobs` without those that no grid would be recognised in: they would not be cheaper.

    Raises:
        OptionError: a pattern matches no layer.
    """
    jobs, skipped = find_jobs(model, view, exclude, only)
    few = [Skipped(x.name, _TOO_FEW) for job in jobs if _too_few(job) for x in job.layers]
    return [job for job in jobs if not _too_few(job)], skipped + few


def _too_few(job: Job) -> bool:
    layer = job.layers[0]
    # The weight itself is read for few of them: a large one is not held.
    few = layer.parameters - layer.filters < SHOWS_A_GRID - 1
    return few and job.weight.step is None


def _refusal(layers: Sequence[Layer], weights: Weights, excluded: dict[str, str]) -> str:
    weight = weights.of(layers[0])
    for layer in layers:
        if layer.name in excluded:
            return f"its weight is shared with {layer.name}: {excluded[layer.name]}"
    if weight.locked:
        return weight.locked
    if not weight.values.size:
        return "its weight is empty"
    if not all_finite(weight.values):
        return "its weights are not finite (NaN or infinity)"
    W = weight.values
    others_W = (weights.of(layer).values for layer in layers[1:])
    if any(x.shape != W.shape or not np.array_equal(x, W) for x in others_W):
        others = ", ".join(x.name for x in layers)
        return f"the layers {others} share its weight, but read it in different layouts"
    return ""
