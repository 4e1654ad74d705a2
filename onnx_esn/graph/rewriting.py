"""Remove channels from a graph: slice the tensors, mend the nodes, prove the result.

The proof needs no trust in the rules of `repair`: the rewritten graph is walked again, at two
sizes; every tensor must have its old shape less what was removed, and every data movement,
executed on labels, must deliver exactly the surviving labels in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_esn.graph.channel_groups import Analysis
from onnx_esn.graph.channel_labels import Labels, Mask, line
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.movement import MOVES, Move, MovementError, compact, move
from onnx_esn.graph.propagation import captured
from onnx_esn.graph.repair import RepairError, Site, mend
from onnx_esn.graph.shapes import Facts, Shape, ShapeWalk, describe
from onnx_esn.graph.slicing import (
    Slicing,
    TensorSlice,
    add_initializer,
    demands,
    removed_along,
    slice_tensors,
)


class RewriteError(Exception):
    """These labels cannot go: the graph around `node` cannot be rewritten.

    Attributes:
        labels: labels to lock before trying again.
        reason: for the report.
    """

    def __init__(self, labels: Labels, reason: str) -> None:
        super().__init__(reason)
        self.labels = labels
        self.reason = reason


@dataclass(frozen=True)
class Rewritten:
    """A model without the removed channels, and the slices that were taken from its tensors."""

    model: onnx.ModelProto
    slices: tuple[TensorSlice, ...]


def rewrite(analysis: Analysis, removed: Mask) -> Rewritten:
    """Remove labels (whole classes, none locked) from the analysed model.

    Args:
        analysis: the model and its labels.
        removed: per label, whether it goes.

    Raises:
        RewriteError: some node cannot follow; lock the labels it names and choose again.
    """
    model = onnx.ModelProto()
    model.CopyFrom(analysis.model)
    slicing = slice_tensors(analysis, model, demands(analysis, removed))
    _set_groups(analysis, model, removed)
    _Walk(analysis, model, removed).run()
    _drop_unused(analysis.model, model)
    _fit_declarations(model, slicing)
    return Rewritten(model, tuple(slicing.slices))


def _set_groups(analysis: Analysis, model: onnx.ModelProto, removed: Mask) -> None:
    for index, labels in analysis.propagation.groups.items():
        left = int((~removed[labels]).sum())
        node = model.graph.node[index]
        name = "num_groups" if node.op_type == "GroupNormalization" else "group"
        for attribute in node.attribute:
            if attribute.name == name:
                attribute.i = left


class _Walk:
    """Walks old and new graph together, at both sizes."""

    def __init__(self, analysis: Analysis, model: onnx.ModelProto, removed: Mask) -> None:
        self.analysis, self.model, self.removed = analysis, model, removed
        self.old = (analysis.facts, analysis.other)
        constants = Constants(model)
        self.walks = [ShapeWalk(model, facts.sizes, constants) for facts in self.old]
        for walk in self.walks:
            # Declared shapes speak of the old graph.
            walk.declared = {
                k: v for k, v in walk.declared.items() if k not in analysis.propagation.labels
            }
        self.labels = analysis.propagation.labels
        self.names = {n for node in model.graph.node for n in (*node.input, *node.output)}
        self.names |= {t.name for t in model.graph.initializer}
        self.opset = constants.opset.get("", 1)

    def run(self) -> None:
        nodes: list[onnx.NodeProto] = []
        for node in self.model.graph.node:
            nodes += self._visit(node)
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)

    def _visit(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        outputs = list(node.output)
        if outputs and all(not o or o in self.analysis.constants for o in outputs):
            self._step([node])  # parameters: sliced already
            return [node]
        self._freeze(node)
        failures = [len(w.facts.failures) for w in self.walks]
        self._step([node])
        if self._fits(node, outputs):
            return [node]
        for walk, n in zip(self.walks, failures, strict=True):
            del walk.facts.failures[n:]
        site = Site(
            node=node,
            facts=[w.facts for w in self.walks],
            old=self.old,
            expected=[[self._expected(o, f) or () for o in outputs] for f in self.old],
            labels=self.labels.get(node.input[0]) if node.input else None,
            out_labels=[self.labels.get(o) for o in outputs],
            removed=self.removed,
            opset=self.opset,
            fresh=self._fresh,
        )
        try:
            mend(site)
        except (RepairError, ValueError, AssertionError) as error:
            raise self._failure(node, outputs, str(error)) from error
        self._store(site.tensors)
        mended = [*site.before, node, *site.after]
        self._step(mended)
        if not self._fits(node, outputs, mended=bool(site.after)):
            raise self._failure(node, outputs, f"{describe(node)} cannot follow the removal")
        return mended

    def _step(self, nodes: list[onnx.NodeProto]) -> None:
        for node in nodes:
            for walk in self.walks:
                walk.step(node)

    def _store(self, tensors: list[onnx.TensorProto]) -> None:
        for tensor in tensors:
            add_initializer(self.model, tensor)
            for walk in self.walks:
                walk.add_initializer(tensor)

    def _fresh(self, name: str) -> str:
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name

    def _failure(self, node: onnx.NodeProto, outputs: list[str], reason: str) -> RewriteError:
        around = [self.labels[n] for n in (*node.input, *outputs) if n in self.labels]
        gone = [x[self.removed[x]] for x in around]
        labels = np.unique(np.concatenate(gone)) if gone else np.empty(0, np.int64)
        if labels.size == 0:  # a shape came from far away: give up on all of it
            labels = np.flatnonzero(self.removed)
        return RewriteError(labels, reason)

    def _expected(self, name: str, facts: Facts) -> Shape | None:
        """Old shape less what was removed; None where the old shape is unknown."""
        shape = facts.shapes.get(name)
        if shape is None or name not in self.labels:
            return shape
        labels = self.labels[name]
        reference = self.analysis.facts.shapes[name]
        result = list(shape)
        for axis, gone in removed_along(labels, self.removed, name).items():
            # At the other size a flattened axis is longer in proportion.
            result[axis] = shape[axis] - len(gone) * shape[axis] // reference[axis]
        return tuple(result)

    def _surviving(self, name: str) -> Labels | None:
        labels = self.labels.get(name)
        if labels is None:
            return None
        for axis, gone in removed_along(labels, self.removed, name).items():
            labels = np.delete(labels, gone, axis)
        return labels

    def _fits(self, node: onnx.NodeProto, outputs: list[str], mended: bool = False) -> bool:
        for walk, old in zip(self.walks, self.old, strict=True):
            for name in outputs:
                if name and walk.facts.shapes.get(name) != self._expected(name, old):
                    return False
        if mended or node.op_type not in MOVES or node.domain not in ("", "ai.onnx"):
            return mended or node.op_type != "Pad" or self._pad_fits(node)
        source = self._surviving(node.input[0]) if node.input else None
        if source is None:
            return True
        facts = self.walks[0].facts
        m = Move(
            node.op_type,
            attributes(node),
            [facts.values.get(i) if i else None for i in node.input],
            facts.shapes[node.input[0]],
            [facts.shapes.get(o, ()) for o in outputs],
        )
        try:
            got = move(m, source)
        except MovementError:
            return False
        for name, labels in zip(outputs, got, strict=False):
            want = self._surviving(name)
            if want is not None and not np.array_equal(compact(want), compact(labels)):
                return False
        return True

    def _pad_fits(self, node: onnx.NodeProto) -> bool:
        """Shapes agree; the padding before and after must agree one by one."""
        labels = self.labels.get(node.output[0])
        source = self.labels.get(node.input[0])
        if labels is None or source is None or labels.shape == source.shape:
            return True
        facts = self.walks[0].facts
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
                before = int(np.flatnonzero(outer == inner[0])[0]) if inner.size else 0
                want = int((~self.removed[outer[:before]]).sum())
                if int(np.asarray(pads).reshape(-1)[axes.index(axis)]) != want:
                    return False
        return True

    def _freeze(self, node: onnx.NodeProto) -> None:
        """A number computed from a channel count (√C, say) keeps its old value.

        It is part of what the model computes, not of how it lays out its tensors.
        """
        if node.op_type in _SHAPE_READERS or any(o in self.old[0].values for o in node.output):
            return
        for slot, name in enumerate(node.input):
            if not name or name in self.analysis.constants:
                continue
            a, b = (f.values.get(name) for f in self.old)
            now = self.walks[0].facts.values.get(name)
            if a is None or b is None or not np.array_equal(a, b):
                continue
            if now is not None and np.array_equal(now, a):
                continue
            tensor = numpy_helper.from_array(a, self._fresh(f"{name}_fixed"))
            self._store([tensor])
            node.input[slot] = tensor.name


_SHAPE_READERS = {
    "ConstantOfShape", "Expand", "Gather", "Pad", "Reshape", "Resize", "Slice", "Split", "Tile",
    "Unsqueeze", "Squeeze", "Upsample", "If", "Loop", "Scan",
}  # fmt: skip


def _drop_unused(old: onnx.ModelProto, new: onnx.ModelProto) -> None:
    """Remove what the rewriting left without a reader (and only that)."""

    def readers(model: onnx.ModelProto) -> set[str]:
        names = {o.name for o in model.graph.output}
        for node in model.graph.node:
            names.update(i for i in node.input if i)
            names.update(captured(node))
        return names

    used_before = readers(old)
    while True:
        used = readers(new)
        nodes = [
            n
            for n in new.graph.node
            if not any(o in used_before and o not in used for o in n.output)
            or any(o in used for o in n.output)
        ]
        if len(nodes) == len(new.graph.node):
            break
        del new.graph.node[:]
        new.graph.node.extend(nodes)
    stale = {t.name for t in new.graph.initializer if t.name in used_before and t.name not in used}
    for names in (new.graph.initializer, new.graph.input):
        kept = [t for t in names if t.name not in stale]
        if len(kept) < len(names):
            del names[:]
            names.extend(kept)


def _fit_declarations(model: onnx.ModelProto, slicing: Slicing) -> None:
    """Declared shapes of the old graph go; initializers that are inputs declare their new shape."""
    had = bool(model.graph.value_info)
    del model.graph.value_info[:]
    dims = {t.name: t for t in model.graph.initializer}
    for info in model.graph.input:
        if info.name in dims:
            tensor = dims[info.name]
            info.CopyFrom(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    if had:
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
            model.graph.value_info.extend(inferred.graph.value_info)
        except (onnx.shape_inference.InferenceError, ValueError):
            pass  # only a convenience for readers of the file
