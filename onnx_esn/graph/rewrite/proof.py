"""Proof that a rewritten node does what it did, less what was removed.

It needs no trust in the rules of `repair`. Every tensor must have its old shape less what was
removed; and the node, executed on numbered positions as it was and as it is, must deliver the
same positions in the same order, the removed ones left out. Positions, not labels: two positions
may stand and fall together and still hold different values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnx_esn.graph.channels.carrying import Removed
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels, Mask, line
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.movement import MOVES, Move, MovementError, compact, move
from onnx_esn.graph.rewrite.slicing import removed_along


class Proof:
    """Checks nodes of a rewritten graph against the analysed one."""

    def __init__(self, analysis: Analysis, removed: Mask) -> None:
        self.analysis, self.removed = analysis, removed
        self.labels = analysis.propagation.labels
        self.old = (analysis.facts, analysis.other)
        self._cuts: dict[str, Removed] = {}

    def touches(self, names: Sequence[str]) -> bool:
        """Whether any of these tensors loses positions."""
        return any(bool(self.removed[self.labels[n]].any()) for n in names if n in self.labels)

    def expected(self, name: str, facts: Facts) -> Shape | None:
        """Old shape less what was removed; None where the old shape is unknown."""
        shape = facts.shapes.get(name)
        if shape is None or name not in self.labels:
            return shape
        reference = self.analysis.facts.shapes[name]
        result = list(shape)
        for axis, gone in self._cut(name).items():
            # At the other size a flattened axis is longer in proportion.
            result[axis] = shape[axis] - len(gone) * shape[axis] // reference[axis]
        return tuple(result)

    def _cut(self, name: str) -> Removed:
        if name not in self._cuts:
            self._cuts[name] = removed_along(self.labels[name], self.removed, name)
        return self._cuts[name]

    def shapes_hold(self, outputs: Sequence[str], facts: Sequence[Facts]) -> bool:
        """Whether the outputs have the shapes that are expected, at both sizes."""
        return all(
            now.shapes.get(name) == self.expected(name, old)
            for now, old in zip(facts, self.old, strict=True)
            for name in outputs
            if name
        )

    def positions_hold(
        self, before: onnx.NodeProto, nodes: Sequence[onnx.NodeProto], facts: Facts
    ) -> bool:
        """Whether `nodes` deliver what the node `before` did, less what was removed.

        Args:
            before: a node of the analysed graph.
            nodes: what stands in its place; those that do not lead from its data input to its
                outputs (a computed target) are passed over.
            facts: facts of the rewritten graph.
        """
        if before.domain not in ("", "ai.onnx") or not before.input:
            return True
        data = before.input[0]
        if before.op_type == "Pad":
            return self._padding_holds(before, nodes[-1], facts)
        if before.op_type not in MOVES or data not in self.labels:
            return True
        labels = self.labels[data]
        if not self.touches([data, *before.output]) and not self._moved(before, nodes, facts):
            return True
        ids = np.arange(1, labels.size + 1).reshape(labels.shape)
        gone = np.append(False, self.removed[labels].reshape(-1))
        try:
            want = move(_as_move(before, self.analysis.facts, before.input[0]), ids)
            now = {data: _without(ids, gone)}
            for node in nodes:
                if node.input[0] in now and node.op_type in MOVES:
                    outputs = move(_as_move(node, facts, node.input[0]), now[node.input[0]])
                    now.update(zip(node.output, outputs, strict=False))
        except (MovementError, ValueError):
            # What cannot be executed was a barrier, so nothing of it was removed.
            return not self.touches([data, *before.output])
        return all(
            np.array_equal(compact(_without(w, gone)), compact(now[name]))
            for name, w in zip(before.output, want, strict=False)
            if name
        )

    def _moved(self, before: onnx.NodeProto, nodes: Sequence[onnx.NodeProto], facts: Facts) -> bool:
        """Whether a value that steers the node is another one now."""
        if len(nodes) > 1 or list(nodes[0].input) != list(before.input):
            return True
        old = self.analysis.facts.values
        return any(
            name in old and not np.array_equal(old[name], facts.values.get(name, old[name]))
            for name in before.input[1:]
        )

    def _padding_holds(self, before: onnx.NodeProto, node: onnx.NodeProto, facts: Facts) -> bool:
        """Shapes agree; the padding before and after must agree one by one."""
        labels, source = self.labels.get(node.output[0]), self.labels.get(node.input[0])
        if labels is None or source is None or labels.shape == source.shape:
            return True
        attrs = attributes(node)
        pads = attrs.get("pads", facts.values.get(node.input[1]) if len(node.input) > 1 else None)
        if pads is None:
            return False
        rank = labels.ndim
        axes = list(range(rank))
        if len(node.input) > 3 and node.input[3]:
            axes = [int(v) % rank for v in facts.values[node.input[3]]]
        for axis in range(rank):
            if labels.shape[axis] != source.shape[axis] and labels.shape[axis] > 1:
                outer, inner = line(labels, axis), line(source, axis)
                first = int(np.flatnonzero(outer == inner[0])[0])
                want = int((~self.removed[outer[:first]]).sum())
                if int(np.asarray(pads).reshape(-1)[axes.index(axis)]) != want:
                    return False
        return True


def _as_move(node: onnx.NodeProto, facts: Facts, data: str) -> Move:
    return Move(
        node.op_type,
        attributes(node),
        [facts.values.get(i) if i else None for i in node.input],
        facts.shapes[data],
        [facts.shapes.get(o, ()) for o in node.output],
    )


def _without(ids: Labels, gone: Mask) -> Labels:
    for axis, positions in removed_along(ids, gone, "positions").items():
        ids = np.delete(ids, positions, axis)
    return ids
