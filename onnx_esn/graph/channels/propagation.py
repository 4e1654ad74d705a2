"""Run the graph on channel labels.

One walk over the nodes. Each operator has a rule (`rules_*`); an operator without one is a
barrier: whatever touches it stays as it is, with its name as the reason. What comes out is, for
each tensor, which label sits at which position, and for each parameter, which of its slices go
with which label (*claims*).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.channels.labels import KnownLocks, Labels, LabelSpace
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import EvaluationError, attributes
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.movement import MovementError
from onnx_esn.graph.node_names import describe

log = logging.getLogger(__name__)
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Claim:
    """A parameter whose slices go with labels.

    Attributes:
        node: index of the node that reads the parameter.
        slot: input slot of the node.
        tensor: name of the parameter as the node reads it.
        labels: compact array of the parameter's rank.
        role: "filter" (rows that make channels), "input" (slices that read channels),
            "param" (per-channel parameters of channels passing by).
    """

    node: int
    slot: int
    tensor: str
    labels: Labels
    role: str


@dataclass(frozen=True)
class Product:
    """An activation whose labels a product with another activation contracts.

    Attributes:
        node: index of the node.
        slot: input slot of the activation.
        labels: compact array of its rank.
    """

    node: int
    slot: int
    labels: Labels


@dataclass(frozen=True)
class Skip:
    """A node that keeps channels from being removed, and why."""

    node: str
    reason: str


@dataclass
class Propagation:
    """State of the walk, and its result."""

    model: onnx.ModelProto
    constants: Constants
    facts: Facts
    space: LabelSpace = field(default_factory=LabelSpace)
    labels: dict[str, Labels] = field(default_factory=dict)
    single: dict[str, Labels] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    groups: dict[int, Labels] = field(default_factory=dict)
    products: list[Product] = field(default_factory=list)
    barriers: list[Skip] = field(default_factory=list)
    stays: dict[str, str] = field(default_factory=dict)
    entered: dict[str, int] = field(default_factory=dict)
    index: int = 0
    producers: dict[str, int] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Note who makes and who reads each tensor."""
        for i, node in enumerate(self.model.graph.node):
            self.producers.update(dict.fromkeys(node.output, i))
            self.uses.update(node.input)
            self.uses.update(captured(node))
        self.uses.update(o.name for o in self.model.graph.output)

    # What rules use.

    def get(self, name: str) -> Labels | None:
        """Labels of a tensor, or None where it carries none."""
        return self.labels.get(name)

    def put(
        self, name: str, x: Labels | None, reason: str = "its only channel: nothing would be left"
    ) -> None:
        """Set the labels of an output. One that covers the whole tensor cannot go: lock it.

        Such a tensor passes for unlabelled, so that a gate of one channel does not tie those it
        multiplies; `single` remembers which position was taken.
        """
        if x is None or not name:
            return
        if x.size == 1:
            self.space.lock(x, reason)
            self.single[name] = x
            return
        if not x.any():
            return
        if self.space.settled[x].all():
            self.stays[name] = self.space.why(x)
        else:
            self.labels[name] = x

    def shape(self, name: str) -> Shape:
        """Full shape of a tensor; raises MovementError where it is unknown."""
        try:
            return self.facts.shapes[name]
        except KeyError:
            raise MovementError(f"the shape of {name!r} is unknown") from None

    def value(self, name: str) -> NDArray[Any] | None:
        """Value of a small data-independent tensor or constant, or None."""
        if not name:
            return None
        if name in self.facts.values:
            return self.facts.values[name]
        return self.constants.value(name) if name in self.constants else None

    def params(self, node: onnx.NodeProto) -> list[NDArray[Any] | None]:
        """Known small values of the node's inputs."""
        return [self.facts.values.get(i) if i else None for i in node.input]

    def attrs(self, node: onnx.NodeProto) -> dict[str, Any]:
        """The node's attributes."""
        return attributes(node)

    def claim(self, node: onnx.NodeProto, slot: int, labels: Labels, role: str) -> None:
        """The parameter in `slot` goes with `labels`, a compact array of its rank."""
        if labels.any():
            shape = self.shape(node.input[slot])
            if labels.ndim != len(shape) or any(
                n not in (1, full) for n, full in zip(labels.shape, shape, strict=True)
            ):
                raise MovementError(f"{node.input[slot]!r} has another number of channels")
            self.claims.append(Claim(self.index, slot, node.input[slot], labels, role))

    def fill(self, name: str, labels: Labels) -> bool:
        """Label a tensor that only repeats values along the labelled axes, if we can.

        Zeros that widen a shortcut, indices that are the same for all channels. Its shape is
        computed, so it can follow; nothing else may read it.
        """
        index = self.producers.get(name, -1)
        if index < 0 or self.uses[name] != 1:
            return False
        node = self.model.graph.node[index]
        if node.op_type == "Expand":
            shape = self.shape(node.input[0])
            part = labels.reshape(labels.shape[labels.ndim - len(shape) :])
            thin = [axis for axis, n in enumerate(shape) if n == 1]
            if any(part.shape[axis] > 1 for axis in range(len(shape)) if axis not in thin):
                if node.input[0] not in self.constants:
                    return False
                part = self.space.tie_along(part, thin, f"repeated in {describe(node)}")
                self.claims.append(Claim(index, 0, node.input[0], part, "param"))
        elif node.op_type != "ConstantOfShape":
            return False
        self.labels[name] = labels
        return True

    def hand_down(self, node: onnx.NodeProto) -> None:
        """Outputs without labels have none for the reason that the inputs have none."""
        why = next((w for w in map(self.why_unlabelled, node.input) if w), "")
        for name in node.output:
            if why and name not in self.labels:
                self.stays.setdefault(name, why)

    def why_unlabelled(self, name: str) -> str:
        """Why the channels of a tensor stay, where that is known: they met a lock before."""
        x = self.labels.get(name)
        if x is not None and self.space.settled[x].all():
            return self.space.why(x)
        return self.stays.get(name, "")

    def barrier(self, node: onnx.NodeProto, reason: str) -> None:
        """Lock what touches the node; its outputs carry no labels."""
        names = [*node.input, *captured(node)]
        if any(name in self.labels for name in names) or self._weighs(node):
            self.barriers.append(Skip(describe(node), reason))
        for name in names:
            self.space.lock(self.get(name), f"read by {describe(node)}: {reason}")

    def _weighs(self, node: onnx.NodeProto) -> bool:
        """Whether the node reads what may be a weight: someone will ask why it was left alone."""
        stored = [n for n in node.input if n in self.constants.initializers]
        return any(len(self.constants.shape(n)) > 1 for n in stored)


Rule = Callable[[Propagation, onnx.NodeProto], None]


def propagate(
    model: onnx.ModelProto,
    constants: Constants,
    facts: Facts,
    rules: dict[str, Rule],
    known: KnownLocks | None = None,
) -> Propagation:
    """Walk the main graph once and return labels, claims, ties and locks.

    Args:
        model: the model.
        constants: its constants.
        facts: its shapes.
        rules: what each operator does to labels.
        known: locks that an earlier walk found. Labels that are locked are not followed any
            further: they would only keep others from being labelled.
    """
    p = Propagation(model, constants, facts, LabelSpace(known))
    for p.index, node in enumerate(model.graph.node):
        if node.output and all(not o or o in constants for o in node.output):
            continue
        rule = rules.get(qualified(node))
        if rule is None:
            if node.op_type not in ("Shape", "Size"):
                p.barrier(node, f"no rule for operator {qualified(node)}")
            continue
        issued, claimed = p.space.count, len(p.claims)
        try:
            rule(p, node)
            if p.space.count == issued:
                p.hand_down(node)
        except (MovementError, EvaluationError) as error:
            p.barrier(node, str(error))
            # What the rule had already said of the node's own filters no longer holds.
            p.space.lock_range(issued + 1, str(error))
            del p.claims[claimed:]
    for output in model.graph.output:
        p.space.lock(p.get(output.name), f"graph output {output.name!r}")
    return p


def align(x: NDArray[T], rank: int) -> NDArray[T]:
    """Prepend axes of size 1, as broadcasting does."""
    return x.reshape((1,) * (rank - x.ndim) + x.shape)


def along(vector: NDArray[T], axis: int, rank: int) -> NDArray[T]:
    """Lay a vector along one axis of a compact array."""
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


def others(rank: int, axis: int) -> Sequence[int]:
    """All axes but one."""
    return [a for a in range(rank) if a != axis]


def qualified(node: onnx.NodeProto) -> str:
    """The operator's name, with its domain where that is not the default one."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
