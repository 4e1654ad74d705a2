"""Remove channels from a graph: slice the tensors, mend the nodes, prove the result.

The rewritten graph is walked node by node, at two sizes. A node that does not do what it did, less
what was removed (`proof`), is mended (`repair`) and checked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_esn.graph.bodies import DOMAIN
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels, Mask
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Array
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.node_names import describe
from onnx_esn.graph.rewrite.housekeeping import drop_unused, fit_declarations
from onnx_esn.graph.rewrite.numbers import check_comparison, counted_labels, keep_numbers
from onnx_esn.graph.rewrite.proof import Proof
from onnx_esn.graph.rewrite.repair import RepairError, Site, mend
from onnx_esn.graph.rewrite.slicing import TensorSlice, demands, slice_tensors
from onnx_esn.graph.shapes import ShapeWalk
from onnx_esn.graph.stored import add_initializer, without_values


class RewriteError(Exception):
    """These labels cannot go: some node cannot be rewritten.

    Attributes:
        labels: labels to lock before trying again.
        reason: for the report.
        locks: the same for every node that failed, this one first.
    """

    def __init__(
        self, labels: Labels, reason: str, others: Sequence[tuple[Labels, str]] = ()
    ) -> None:
        super().__init__(reason)
        self.labels = labels
        self.reason = reason
        self.locks = [(labels, reason), *others]


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
    if not removed.any():
        model = onnx.ModelProto()
        model.CopyFrom(analysis.source)
        return Rewritten(model, ())
    model = without_values(analysis.model)
    slicing = slice_tensors(analysis, model, demands(analysis, removed))
    _set_groups(analysis, model, removed)
    _Walk(analysis, model, removed).run()
    drop_unused(analysis.model, model)
    fit_declarations(analysis, model, removed)
    result = onnx.ModelProto()  # a fresh one: `model` still holds what was taken out of it
    result.CopyFrom(model)
    slicing.filling.fill(result)
    return Rewritten(result, tuple(slicing.slices))


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
        self.labels = analysis.propagation.labels
        self.proof = Proof(analysis, removed)
        constants = Constants(model)
        self.walks = [ShapeWalk(model, facts.sizes, constants, facts.count) for facts in self.old]
        for walk in self.walks:
            # Declared shapes speak of the old graph.
            walk.declared = {k: v for k, v in walk.declared.items() if not self.proof.touches([k])}
        self.names = Names(model.graph)
        self.opset = constants.opset.get("", 1)
        self.failures: list[tuple[Labels, str]] = []

    def run(self) -> None:
        nodes: list[onnx.NodeProto] = []
        pairs = zip(self.analysis.model.graph.node, self.model.graph.node, strict=True)
        for before, node in pairs:
            nodes += self._visit(before, node)
        self._check_outputs()
        if self.failures:
            raise RewriteError(*self.failures[0], self.failures[1:])
        if len(nodes) > len(self.model.graph.node):
            del self.model.graph.node[:]
            self.model.graph.node.extend(nodes)

    def _visit(self, before: onnx.NodeProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        outputs = list(node.output)
        if outputs and all(not o or o in self.analysis.constants for o in outputs):
            self._step([node])  # parameters: sliced already
            return [node]
        try:
            first = self._keep_numbers(node)
        except RepairError as error:
            names = [i for i in node.input if i in self.old[0].values]
            counted = [counted_labels(self.analysis, i, self.removed) for i in names]
            self._note(np.unique(np.concatenate(counted)), str(error))
            first = []
        self._step(first)
        return [*first, *self._rewritten(before, node)]

    def _rewritten(self, before: onnx.NodeProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        outputs = list(node.output)
        failures = [len(w.facts.failures) for w in self.walks]
        self._step([node])
        if node.domain == DOMAIN:
            self._trust(node)
        if self._holds(before, [node]):
            return [node]
        for walk, n in zip(self.walks, failures, strict=True):
            del walk.facts.failures[n:]
        site = Site(
            node=node,
            facts=[w.facts for w in self.walks],
            old=self.old,
            expected=[[self.proof.expected(o, f) or () for o in outputs] for f in self.old],
            labels=self.labels.get(node.input[0]) if node.input else None,
            out_labels=[self.labels.get(o) for o in outputs],
            removed=self.removed,
            opset=self.opset,
            fresh=self.names.fresh,
        )
        try:
            mend(site)
        except (RepairError, ValueError, AssertionError) as error:
            self._give_up(before, str(error))
            return [node]
        self._store(site.tensors)
        mended = [*site.before, node, *site.after]
        self._step(mended)
        if not self._holds(before, mended):
            self._give_up(before, f"{describe(before)} cannot follow the removal")
        return mended

    def _trust(self, node: onnx.NodeProto) -> None:
        """Shapes of what leaves a body may be known from a declaration only."""
        for walk, old in zip(self.walks, self.old, strict=True):
            for name in node.output:
                if name in old.shapes and name not in walk.facts.shapes:
                    walk.assume(name, old.types[name], self.proof.expected(name, old))

    def _holds(self, before: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> bool:
        facts = [w.facts for w in self.walks]
        return self.proof.shapes_hold(before.output, facts) and self.proof.positions_hold(
            before, nodes, facts[0]
        )

    def _step(self, nodes: list[onnx.NodeProto]) -> None:
        for node in nodes:
            for walk in self.walks:
                walk.step(node)

    def _store(self, tensors: list[onnx.TensorProto]) -> None:
        for tensor in tensors:
            add_initializer(self.model, tensor)
            for walk in self.walks:
                walk.add_initializer(tensor)

    def _give_up(self, node: onnx.NodeProto, reason: str) -> None:
        """Note the failure and go on as if the node had followed, to find the others as well."""
        around = [self.labels[n] for n in (*node.input, *node.output) if n in self.labels]
        gone = [x[self.removed[x]] for x in around]
        labels = np.unique(np.concatenate(gone)) if gone else np.empty(0, np.int64)
        self._note(labels, reason)
        for walk, old in zip(self.walks, self.old, strict=True):
            for name in node.output:
                if name in old.types:
                    walk.assume(name, old.types[name], self.proof.expected(name, old))

    def _note(self, labels: Labels, reason: str) -> None:
        if labels.size == 0:  # a shape came from far away: give up on all of it
            labels = np.flatnonzero(self.removed)
        # What shares labels with an earlier failure may be a consequence of it.
        if not any(np.isin(labels, earlier).any() for earlier, _ in self.failures):
            self.failures.append((labels, reason))

    def _keep_numbers(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        facts = [w.facts for w in self.walks]
        if any(o in self.old[0].values for o in node.output):
            check_comparison(self.analysis, node, facts)
            return []  # arithmetic on the way to a number
        if node.op_type in _SHAPE_READERS and (
            self.proof.touches([node.input[0], *node.output]) or self._moves_with_size(node)
        ):
            return []  # what it reads says how tensors are laid out: it is mended
        return keep_numbers(self.analysis, node, facts, self._constant, self.names.fresh)

    def _moves_with_size(self, node: onnx.NodeProto) -> bool:
        a, b = ([f.values.get(i) for i in node.input[1:]] for f in self.old)
        return any(
            x is not None and y is not None and not np.array_equal(x, y)
            for x, y in zip(a, b, strict=True)
        )

    def _constant(self, value: Array, name: str) -> str:
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), self.names.fresh(name))
        self._store([tensor])
        return tensor.name

    def _check_outputs(self) -> None:
        """A number that is a graph output may not have changed with the channels."""
        for output in self.analysis.model.graph.output:
            for walk, old in zip(self.walks, self.old, strict=True):
                before, now = old.values.get(output.name), walk.facts.values.get(output.name)
                if before is not None and (now is None or not np.array_equal(before, now)):
                    labels = counted_labels(self.analysis, output.name, self.removed)
                    self._note(labels, f"counted in graph output {output.name!r}")


_SHAPE_READERS = {
    "ConstantOfShape", "Expand", "Gather", "GatherElements", "GatherND", "Pad", "Reshape", "Resize",
    "ScatterElements", "Slice", "Split", "Squeeze", "Tile", "Unsqueeze", "Upsample",
}  # fmt: skip
