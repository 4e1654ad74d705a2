"""Cut a model into stages, so that each point is measured after all points before it are corrected.

The *level* of a node is the number of boundary nodes (`Point.node`) on the longest path that ends
in it. Stage k runs the nodes of level k on the tensors that the stages before it left behind:
the *cut* k. All that depends on constants only is no part of a cut; it travels with each stage
that reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.errors import OperationError

from .point_moments import Point
from .tensor_spec import TensorSpec

# They read nothing, or no data, and yet are not constant.
_RANDOM = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial",
}  # fmt: skip


class StageGraph:
    """A model in stages.

    Args:
        model: the model.
        points: what is measured.
        feeds: names of the model's inputs.
        together: sets of `Point.node` whose points are measured in one stage, the latest of them.

    Attributes:
        levels: number of stages; the last one measures the last points.
        feeds: names of the model's inputs.

    Raises:
        OperationError: a point's tensor is constant, its boundary is not a node of the model, or
            nodes that shall come together wait for each other.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        points: Sequence[Point],
        feeds: Iterable[str],
        together: Sequence[Sequence[str]] = (),
    ):
        self._model = model
        self.feeds = frozenset(feeds)
        self._stored = {t.name: t for t in model.graph.initializer}
        self._sparse = {t.values.name: t for t in model.graph.sparse_initializer}
        nodes = model.graph.node
        self._made = {name: i for i, node in enumerate(nodes) for name in node.output if name}
        boundaries = {point.node for point in points}
        for point in points:
            if point.node not in self._made:
                raise OperationError(f"'{point.name}': the model has no node that makes it")
        # Level by tensor that depends on the data, and by node that does.
        self._tensor: dict[str, int] = {}
        self._node: dict[int, int] = {}
        self._floor: dict[str, int] = {}  # of boundaries that wait for others
        self._find_levels(boundaries)
        while self._raise_floors(together):
            if max(self._floor.values()) > len(boundaries):
                raise OperationError("layers that are solved together wait for each other")
            self._find_levels(boundaries)
        for point in points:
            if point.tensor not in self._tensor:
                raise OperationError(f"'{point.name}' does not depend on the model's inputs")
        self.levels = 1 + max(map(self.stage_of, points), default=-1)
        self._cuts: dict[int, list[str]] = {}
        # By tensor that the data does not reach: the last level that reads it, straight or not.
        self._last_use: dict[str, float] = {}
        for i, node in enumerate(nodes):
            at = self._node.get(i, math.inf)
            for name in _reads(node):
                self._last_use[name] = max(at, self._last_use.get(name, 0))
        self._last_read = self._find_last_reads(points)

    def stage_of(self, point: Point) -> int:
        """The stage in which a point is measured: that which makes its tensor, or a later one."""
        return max(self._tensor[point.tensor], self._floor.get(point.node, 0) - 1)

    def cut(self, level: int) -> list[str]:
        """Tensors made before stage `level` that it or a later stage reads; cut 0 is the inputs."""
        if level not in self._cuts:
            made = self.feeds if not level else {n for n, at in self._tensor.items() if at < level}
            self._cuts[level] = sorted(n for n in made if self._last_read.get(n, -1) >= level)
        return self._cuts[level]

    def last_use(self, stored: str) -> float:
        """The last level at which a node reads a stored tensor; infinity where constants do."""
        return self._last_use.get(stored, 0)

    def stage(
        self,
        base: int,
        outputs: Sequence[str],
        specs: Mapping[str, TensorSpec],
        values: Mapping[str, npt.NDArray[np.generic]],
    ) -> onnx.ModelProto:
        """The part of the model that makes `outputs` from the tensors of cut `base`.

        Args:
            base: the cut.
            outputs: names of tensors that are not in the cut.
            specs: element type and shape of the tensors in the cut.
            values: initializers whose value has changed.
        """
        given = set(self.cut(base))
        nodes: set[int] = set()
        reached: set[str] = set()
        pending = list(outputs)
        while pending:
            name = pending.pop()
            if name in reached:
                continue
            reached.add(name)
            i = self._made.get(name)
            if name not in given and i is not None and i not in nodes:
                nodes.add(i)
                pending.extend(_reads(self._model.graph.node[i]))
        model, graph = self._model, onnx.GraphProto(name=self._model.graph.name)
        graph.node.extend(model.graph.node[i] for i in sorted(nodes))
        graph.input.extend(_declare(specs[name]) for name in sorted(given & reached))
        # The runtime infers the type of an output that is only named.
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        for name in sorted(reached):
            if name in values:
                graph.initializer.append(onnx.numpy_helper.from_array(values[name], name))
            elif name in self._stored:
                graph.initializer.append(self._stored[name])
            elif name in self._sparse:
                graph.sparse_initializer.append(self._sparse[name])
        # Below IR version 4 every initializer would have to be an input too.
        part = onnx.ModelProto(ir_version=max(model.ir_version, 4), graph=graph)
        part.opset_import.extend(model.opset_import)
        part.functions.extend(model.functions)
        return part

    def _find_levels(self, boundaries: set[str]) -> None:
        self._tensor = dict.fromkeys(self.feeds, 0)
        for i, node in enumerate(self._model.graph.node):
            below = [self._tensor[name] for name in _reads(node) if name in self._tensor]
            if not below and node.op_type not in _RANDOM:
                continue
            level = max(below, default=0) + (not boundaries.isdisjoint(node.output))
            level = max([level, *(self._floor.get(name, 0) for name in node.output)])
            self._node[i] = level
            self._tensor.update((name, level) for name in node.output if name)

    def _raise_floors(self, together: Sequence[Sequence[str]]) -> bool:
        """Let nodes wait for those they come together with; whether any has to."""
        raised = False
        for names in together:
            level = max(self._tensor.get(name, 0) for name in names)
            for name in names:
                if self._tensor.get(name, level) < level:
                    self._floor[name] = level
                    raised = True
        return raised

    def _find_last_reads(self, points: Sequence[Point]) -> dict[str, int]:
        """By tensor that the data reaches: the last level at which a node that matters reads it."""
        last: dict[str, int] = {}
        measured = {point.tensor for point in points}
        needed = set(measured)
        for i in reversed(range(len(self._model.graph.node))):
            node = self._model.graph.node[i]
            if i not in self._node or needed.isdisjoint(node.output):
                continue
            for name in _reads(node):
                if name in self._tensor:
                    needed.add(name)
                    last[name] = max(last.get(name, 0), self._node[i])
        for point in points:
            if self.stage_of(point) > self._tensor[point.tensor] or point.tensor in self.feeds:
                last[point.tensor] = max(last.get(point.tensor, 0), self.stage_of(point))
        return last


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names a node reads, with what its subgraphs take from outside (and some of their own)."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for subgraph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            yield from (value.name for value in subgraph.output)
            for inner in subgraph.node:
                yield from _reads(inner)


def _declare(spec: TensorSpec) -> onnx.ValueInfoProto:
    element = onnx.helper.np_dtype_to_tensor_dtype(spec.dtype)
    return onnx.helper.make_tensor_value_info(spec.name, element, spec.shape)
