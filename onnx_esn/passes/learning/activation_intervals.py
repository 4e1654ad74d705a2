"""Quantized activations of a student: QDQ pairs whose scales are learned with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from onnx_esn.calibration.ranges import Range
from onnx_esn.formats.activations_grid import KINDS, ActivationGrid, Kind, activation_grid
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.readers import read_places
from onnx_esn.graph.stored import add_initializer
from onnx_esn.numerics.learning.activation_scales import ActivationScales
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.activations.placement import data_slots
from onnx_esn.passes.activations.quantizing import Placed, QuantizeActivations
from onnx_esn.passes.activations.weights import IntegerLayer
from onnx_esn.plans import ActivationRange, ActivationRanges

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Site:
    """A tensor that has a scale of its own.

    Attributes:
        tensor: its name.
        readers: (first output of the node, input slot) that read the integers; None: all of them.
    """

    tensor: str
    readers: tuple[tuple[str, int], ...] | None


@dataclass
class ActivationIntervals:
    """The activations of one student while they are learned.

    Attributes:
        kind: their integers.
        grids: by tensor, where learning starts.
        names: by tensor, the initializer of its scale in the student.
        learned: the scales, in the order of `names`.
    """

    kind: Kind
    grids: Mapping[str, ActivationGrid]
    names: Mapping[str, str]
    learned: ActivationScales

    @property
    def fed(self) -> list[str]:
        """Names of what is fed."""
        return list(self.names.values())

    def feeds(self) -> dict[str, Array]:
        """What to feed."""
        scales = self.learned.scale.astype(np.float32)
        return {name: np.asarray(s) for name, s in zip(self.fed, scales, strict=True)}

    def gradients(self, given: Mapping[str, Array]) -> dict[str, Floats]:
        """Of the scales, from those of the feeds; 0 for what nothing depends on."""
        arrived = [float(given[name].reshape(())) if name in given else 0.0 for name in self.fed]
        return {"scale": np.asarray(arrived, np.float64)}

    def ranges(self) -> ActivationRanges:
        """What each tensor's integers reach from and to, as it is now."""
        return self._of(self.learned.scale)

    def first_ranges(self) -> ActivationRanges:
        """The same before anything was learned."""
        return self._of(np.array([grid.scale for grid in self.grids.values()]))

    def _of(self, scales: Floats) -> ActivationRanges:
        found = []
        for (tensor, grid), s in zip(self.grids.items(), scales, strict=True):
            low, high = ActivationGrid(float(np.float32(s)), grid.zero).ends(self.kind)
            found.append(ActivationRange(tensor, low, high))
        return ActivationRanges(self.kind.name, tuple(found))


def quantized_student(
    quantize: QuantizeActivations, start: onnx.ModelProto, student: onnx.ModelProto
) -> ActivationIntervals:
    """Let the student, which is changed, have the activations that the pass gives its model.

    Raises:
        OnnxEsnError: see `QuantizeActivations`.
    """
    placed = quantize.placed(start)
    known = {name for node in student.graph.node for name in (*node.input, *node.output)}
    sites = [site for site in find_sites(placed) if site.tensor in known]
    ranges = quantize.calibrated(start, placed.placement, placed.facts)
    return with_intervals(student, sites, ranges, KINDS[quantize.kind])


def find_sites(found: Placed) -> list[Site]:
    """The tensors, by their names before neighbours were absorbed."""
    nodes = found.model.graph.node
    own = {x.output: x for x in found.layers}
    sites = []
    for tensor in found.placement.roots:
        readers: list[tuple[str, int]] | None = None
        if tensor not in found.placement.made:
            readers = []
            for i in sorted(found.placement.nodes):
                for slot in data_slots(nodes[i]):
                    if nodes[i].input[slot] == tensor:
                        layer = own.get(nodes[i].output[0])
                        readers.append((_reader(nodes[i].output[0], layer), slot))
        sites.append(Site(tensor, None if readers is None else tuple(readers)))
    return sites


def _reader(name: str, layer: IntegerLayer | None) -> str:
    """What the node made that read the tensor: the layer, or the Pad before it."""
    if layer is None:
        return name
    return layer.layer.output if layer.pads is None else layer.padded


def with_intervals(
    student: onnx.ModelProto, sites: Sequence[Site], ranges: Mapping[str, Range], kind: Kind
) -> ActivationIntervals:
    """Let tensors of the student, which is changed, go through the grids of their ranges."""
    graph = student.graph
    writer = _Writer(student, kind)
    places = read_places(student)
    grids = {site.tensor: activation_grid(*ranges[site.tensor], kind) for site in sites}
    made: dict[str, list[onnx.NodeProto]] = {}
    swapped: list[tuple[onnx.NodeProto, int, str]] = []
    for site in sites:
        made[site.tensor], result = writer.pair(site.tensor, grids[site.tensor])
        wanted = None if site.readers is None else set(site.readers)
        for index, slot in places.get(site.tensor, ()):
            if min(index, slot) < 0:
                continue  # it leaves the model, or goes into a body, as it is made
            node = graph.node[index]
            if wanted is None or (node.output[0], slot) in wanted:
                swapped.append((node, slot, result))
    for node, slot, name in swapped:
        node.input[slot] = name
    _insert(graph, made)
    start = np.array([grid.scale for grid in grids.values()], np.float64)
    return ActivationIntervals(kind, grids, writer.scales, ActivationScales(start))


class _Writer:
    """Makes the nodes of a grid whose scale is fed."""

    def __init__(self, student: onnx.ModelProto, kind: Kind) -> None:
        self._student, self._kind = student, kind
        self._names = Names(student.graph)
        for node in student.graph.node:
            self._names.reserve(node)
        self.scales: dict[str, str] = {}

    def pair(self, tensor: str, grid: ActivationGrid) -> tuple[list[onnx.NodeProto], str]:
        """The nodes for one tensor, and what the last of them makes."""
        kind = self._kind
        scale = self.scales[tensor] = self._store(tensor, "scale", np.float32(grid.scale))
        zero = self._store(tensor, "zero_point", kind.dtype.type(grid.zero))
        nodes: list[onnx.NodeProto] = []

        def emit(op: str, *inputs: str) -> str:
            name = self._names.fresh(f"{tensor}.{op}")
            nodes.append(helper.make_node(op, list(inputs), [name], name))
            return name

        x = tensor
        if kind.narrow:  # the type would hold more
            for op, code in (("Min", kind.high - grid.zero), ("Max", kind.low - grid.zero)):
                x = emit(op, x, emit("Mul", scale, self._store(tensor, "end", np.float32(code))))
        return nodes, emit("DequantizeLinear", emit("QuantizeLinear", x, scale, zero), scale, zero)

    def _store(self, tensor: str, what: str, value: np.generic) -> str:
        name = self._names.fresh(f"{tensor}.{what}")
        add_initializer(self._student, numpy_helper.from_array(np.asarray(value), name))
        return name


def _insert(graph: onnx.GraphProto, made: Mapping[str, Sequence[onnx.NodeProto]]) -> None:
    """Put nodes behind the one that makes their tensor; before all, where it is an input."""
    inputs = {info.name for info in graph.input}
    nodes = [node for name in made if name in inputs for node in made[name]]
    for node in graph.node:
        nodes.append(node)
        for name in node.output:
            nodes += made.get(name, ())
    del graph.node[:]
    graph.node.extend(nodes)
