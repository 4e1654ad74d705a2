"""A node to mend: what is known around it, and how to edit it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_esn.graph.channels.labels import Labels, Mask
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.inputs import Shape

Array = NDArray[Any]


class RepairError(Exception):
    """The node cannot be mended."""


@dataclass
class Site:
    """A node to mend, with what is known around it.

    Attributes:
        node: the node, edited in place.
        facts: facts of the rewritten graph up to this node, at two sizes.
        old: facts of the original graph, at the same two sizes.
        expected: shapes its outputs must have, at the two sizes.
        labels: labels of its data input in the original graph.
        out_labels: labels of its outputs in the original graph.
        removed: per label, whether it went.
        opset: version of the default operator set.
        fresh: makes an unused tensor name.
    """

    node: onnx.NodeProto
    facts: Sequence[Facts]
    old: Sequence[Facts]
    expected: Sequence[list[Shape]]
    labels: Labels | None
    out_labels: list[Labels | None]
    removed: Mask
    opset: int
    fresh: Callable[[str], str]
    tensors: list[onnx.TensorProto] = field(default_factory=list)
    before: list[onnx.NodeProto] = field(default_factory=list)
    after: list[onnx.NodeProto] = field(default_factory=list)

    def constant(self, value: Array, hint: str) -> str:
        """Store a new constant and return its name."""
        name = self.fresh(f"{self.node.output[0]}_{hint}")
        self.tensors.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def set_input(self, slot: int, name: str) -> None:
        """Replace an input, filling left-out ones before it."""
        while len(self.node.input) <= slot:
            self.node.input.append("")
        self.node.input[slot] = name

    def set_attribute(self, name: str, value: Any) -> None:
        """Replace an attribute."""
        self.drop_attribute(name)
        self.node.attribute.append(helper.make_attribute(name, value))

    def drop_attribute(self, name: str) -> None:
        """Remove an attribute if it is there."""
        for a in list(self.node.attribute):
            if a.name == name:
                self.node.attribute.remove(a)
