"""Channel groups: what can be removed from a model, what cannot, and why.

A *class* is a tied set of labels: the smallest thing that can be removed. A *group* is a set of
classes that share layers: the width of a layer, or of a residual stream with all its layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.bodies import ENTER, flattened, restored
from onnx_esn.graph.channels.labels import Classes, Labels, Mask, known_locks, make_rectangular
from onnx_esn.graph.channels.propagation import Propagation, propagate
from onnx_esn.graph.channels.rules import RULES
from onnx_esn.graph.channels.shared_weights import tie_uses
from onnx_esn.graph.channels.size_check import lock_what_moves
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.node_names import unique_names
from onnx_esn.graph.shapes import COUNTING, infer_facts
from onnx_esn.graph.standard_form import standard_form
from onnx_esn.graph.two_sizes import two_sizes

# Each walk knows more of what is locked, and labels layers that a locked axis kept from it.
_ROUNDS = 3


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
        source: the model as it was given.
        model: the model that the labels speak of: in standard operators, its bodies laid open.
        constants: its constant tensors.
        facts: shapes and values at one batch size …
        other: … and at another: a shape value that differs between the two moves with the batch
            (or with another dynamic axis) and must stay computed.
        propagation: labels and claims.
        coupled: the sets that the operators tie.
        classes: the same, joined where only whole slices of an array can go, and where layers
            share a weight.
        groups: the groups.
        apart: the same where layers that share a weight need not lose the same channels; None
            where that makes no difference.
    """

    source: onnx.ModelProto
    model: onnx.ModelProto
    constants: Constants
    facts: Facts
    other: Facts
    propagation: Propagation
    coupled: Classes
    classes: Classes
    groups: tuple[Group, ...]
    apart: Analysis | None = None

    @cached_property
    def executable(self) -> onnx.ModelProto:
        """The labelled model with its bodies closed."""
        return restored(self.model)

    @cached_property
    def layers(self) -> list[Layer]:
        """The weight-bearing layers, in graph order."""
        layers = find_layers(self.model, self.constants, self.facts)
        if not any(node.op_type in COUNTING for node in self.model.graph.node):
            return layers
        certain = infer_facts(self.model, self.facts.sizes, self.constants).shapes
        return [x if x.output in certain else replace(x, macs_per_filter=None) for x in layers]

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
    source, model = model, flattened(standard_form(model, shapes=shapes))
    constants = Constants(model)
    facts, other = two_sizes(model, constants, shapes)
    return _labelled(source, model, constants, facts, other, locks)


def analyse_again(analysis: Analysis, locks: Sequence[tuple[NDArray[np.int64], str]]) -> Analysis:
    """The same model with other `locks`: shapes and constants are known already."""
    a = analysis
    return _labelled(a.source, a.model, a.constants, a.facts, a.other, locks)


def _labelled(
    source: onnx.ModelProto,
    model: onnx.ModelProto,
    constants: Constants,
    facts: Facts,
    other: Facts,
    locks: Sequence[tuple[NDArray[np.int64], str]],
) -> Analysis:
    propagation = propagate(model, constants, facts, RULES)
    for _ in range(_ROUNDS):
        if not _has_unlabelled_layers(propagation):
            break
        known = known_locks(propagation.space, propagation.space.classes())
        del propagation  # as large as the one that follows
        propagation = propagate(model, constants, facts, RULES, known)
    lock_what_moves(propagation, other, RULES)
    for labels, reason in locks:
        propagation.space.lock(labels, reason)
    arrays = [*propagation.labels.values(), *(c.labels for c in propagation.claims)]
    coupled = propagation.space.classes()
    classes = make_rectangular(propagation.space, arrays, coupled)
    apart = Analysis(
        source=source,
        model=model,
        constants=constants,
        facts=facts,
        other=other,
        propagation=propagation,
        coupled=coupled,
        classes=classes,
        groups=_groups(propagation, classes),
    )
    tied = tie_uses(propagation.space, constants, propagation.claims, classes)
    if tied is classes:
        return apart
    tied = make_rectangular(propagation.space, arrays, tied)
    return replace(apart, classes=tied, groups=_groups(propagation, tied), apart=apart)


def _has_unlabelled_layers(p: Propagation) -> bool:
    """Whether a layer makes no channels because what it reads has labels along another axis."""
    issued = {node for _, _, node in p.space.issued}
    return any(
        node.op_type in ("MatMul", "Gemm", "Einsum")
        and i not in issued
        and sum(name in p.constants for name in node.input[:2]) == 1
        for i, node in enumerate(p.model.graph.node)
    )


def _groups(p: Propagation, classes: Classes) -> tuple[Group, ...]:
    layers = [
        (first, n, node)
        for first, n, node in p.space.issued
        if p.model.graph.node[node].op_type not in ("Pad", "Concat", ENTER)
    ]
    if not layers:
        return ()
    # Layers with a class in common are one group. It goes by the number of its first layer.
    group_of = np.arange(len(layers))
    layer_of = np.full(len(classes), -1, np.int32)
    for i, (first, n, _) in enumerate(layers):
        of = classes.of[first : first + n]
        met = np.unique(layer_of[of])
        joined = np.unique(group_of[met[met >= 0]])
        group_of[i] = min([i, *joined])
        group_of[np.isin(group_of, joined)] = group_of[i]
        layer_of[of] = i
    groups: dict[int, list[int]] = {}
    for i, group in enumerate(group_of):
        groups.setdefault(int(group), []).append(i)
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
