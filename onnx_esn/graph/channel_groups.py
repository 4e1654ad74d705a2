"""Channel groups: what can be removed from a model, what cannot, and why.

A *class* is a tied set of labels: the smallest thing that can be removed. A *group* is a set of
classes that share layers: the width of a layer, or of a residual stream with all its layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnx_esn.graph.channel_labels import Classes, Labels, Mask, make_rectangular
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.node_names import unique_names
from onnx_esn.graph.propagation import Propagation, propagate
from onnx_esn.graph.rules import RULES
from onnx_esn.graph.shapes import (
    Facts,
    data_inputs,
    declared_shape,
    guessed_facts,
    infer_facts,
)


@dataclass(frozen=True)
class Member:
    """A layer whose filters belong to a group.

    Attributes:
        node: name of the layer's node.
        op: its operator.
        filters: how many of its filters the group holds.
        depthwise: whether its filters pass channels on one by one instead of making new ones.
    """

    node: str
    op: str
    filters: int
    depthwise: bool


@dataclass(frozen=True)
class Group:
    """Classes that share layers.

    Attributes:
        name: name of the first layer.
        members: its layers, in graph order.
        classes: indices of the classes that may be removed.
        width: number of classes, locked ones included.
        reason: why nothing can be removed; "" where something can.
    """

    name: str
    members: tuple[Member, ...]
    classes: NDArray[np.int64]
    width: int
    reason: str

    @property
    def prunable(self) -> bool:
        """Whether any class may be removed."""
        return self.classes.size > 0


@dataclass(frozen=True)
class Analysis:
    """Everything known of a model's channels.

    Attributes:
        model: the model, unchanged.
        constants: its constant tensors.
        facts: shapes and values at one batch size …
        other: … and at another: a shape value that differs between the two moves with the batch
            (or with another dynamic axis) and must stay computed.
        propagation: labels and claims.
        coupled: the sets that the operators tie.
        classes: the same, joined where only whole slices of an array can go.
        groups: the groups.
    """

    model: onnx.ModelProto
    constants: Constants
    facts: Facts
    other: Facts
    propagation: Propagation
    coupled: Classes
    classes: Classes
    groups: tuple[Group, ...]

    @cached_property
    def layers(self) -> list[Layer]:
        """The weight-bearing layers, in graph order."""
        return find_layers(self.model, self.constants, self.facts)

    @cached_property
    def names(self) -> list[str]:
        """A unique name for each node."""
        return unique_names(self.model)

    @cached_property
    def constraints(self) -> list[NDArray[np.int64]]:
        """Sets of classes of which at least one must stay: no tensor may become empty."""
        seen: dict[bytes, NDArray[np.int64]] = {}
        arrays = [*self.propagation.labels.values(), *(c.labels for c in self.propagation.claims)]
        for x in arrays:
            of = np.unique(self.classes.of[x])
            if of[0] >= 0 and not self.classes.locked[of].any():
                seen.setdefault(of.tobytes(), of)
        return list(seen.values())

    @cached_property
    def first_labels(self) -> dict[int, int]:
        """First label by the index of the node that issued it; its filters follow in order."""
        return {node: first for first, _, node in self.propagation.space.issued}

    def removed_labels(self, removed: Mask) -> Mask:
        """Per label, whether it goes, from the same per class."""
        return np.append(removed, False)[self.classes.of]


def analyse(
    model: onnx.ModelProto,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    locks: Sequence[tuple[NDArray[np.int64], str]] = (),
) -> Analysis:
    """Label the channels of a model and find its groups.

    Args:
        model: the model.
        shapes: input shapes for dynamic axes other than the batch.
        locks: labels to lock in addition, with the reason.
    """
    constants = Constants(model)
    facts = guessed_facts(model, constants, batch=2, shapes=shapes)
    return _labelled(model, constants, facts, _other_facts(model, constants, facts), locks)


def analyse_again(analysis: Analysis, locks: Sequence[tuple[NDArray[np.int64], str]]) -> Analysis:
    """The same model with other `locks`: shapes and constants are known already."""
    a = analysis
    return _labelled(a.model, a.constants, a.facts, a.other, locks)


def _labelled(
    model: onnx.ModelProto,
    constants: Constants,
    facts: Facts,
    other: Facts,
    locks: Sequence[tuple[NDArray[np.int64], str]],
) -> Analysis:
    propagation = propagate(model, constants, facts, RULES)
    for labels, reason in locks:
        propagation.space.lock(labels, reason)
    arrays = [*propagation.labels.values(), *(c.labels for c in propagation.claims)]
    coupled = propagation.space.classes()
    classes = make_rectangular(propagation.space, arrays, coupled)
    groups = _groups(propagation, classes)
    return Analysis(model, constants, facts, other, propagation, coupled, classes, groups)


def _other_facts(model: onnx.ModelProto, constants: Constants, facts: Facts) -> Facts:
    """Facts at another size of every dynamic axis, or of the batch alone where that fails."""

    def resized(batch_only: bool) -> dict[str, tuple[int, ...]]:
        sizes = {}
        for info in data_inputs(model):
            declared = declared_shape(info)
            now = facts.sizes[info.name]
            sizes[info.name] = tuple(
                n
                if declared is None or isinstance(d, int)
                else n + 1
                if axis == 0
                else n
                if batch_only
                else n + 32
                for axis, (n, d) in enumerate(zip(now, declared or now, strict=True))
            )
        return sizes

    for batch_only in (False, True):
        other = infer_facts(model, resized(batch_only), constants)
        if len(other.failures) <= len(facts.failures):
            return other
    return facts


def _groups(p: Propagation, classes: Classes) -> tuple[Group, ...]:
    layers = [
        (first, n, node)
        for first, n, node in p.space.issued
        if p.model.graph.node[node].op_type not in ("Pad", "Concat")
    ]
    if not layers:
        return ()
    blocks = np.concatenate([np.full(n, i) for i, (_, n, _) in enumerate(layers)])
    labels = np.concatenate([np.arange(first, first + n) for first, n, _ in layers])
    of = classes.of[labels]
    size = len(layers) + len(classes)
    links = coo_array((np.ones(of.size, np.int8), (blocks, len(layers) + of)), shape=(size, size))
    _, component = connected_components(links, directed=False)
    groups: dict[int, list[int]] = {}
    for i in range(len(layers)):
        groups.setdefault(int(component[i]), []).append(i)
    names = unique_names(p.model)
    return tuple(
        _group(p, classes, names, [layers[i] for i in members]) for members in groups.values()
    )


def _group(
    p: Propagation, classes: Classes, names: list[str], layers: list[tuple[int, int, int]]
) -> Group:
    nodes = p.model.graph.node
    labels = np.concatenate([np.arange(first, first + n) for first, n, _ in layers])
    of: Labels = np.unique(classes.of[labels])
    free = of[~classes.locked[of]]
    reasons = [classes.reasons[c] for c in of if classes.locked[c]]
    members = tuple(
        Member(names[node], nodes[node].op_type, n, node in p.groups) for _, n, node in layers
    )
    if free.size == 1 and of.size == 1:
        free, reasons = free[:0], ["all its channels stand or fall together"]
    reason = max(dict.fromkeys(reasons), key=reasons.count) if not free.size and reasons else ""
    return Group(members[0].node, members, free, int(of.size), reason)
