"""Operators that commute with a change of basis of the channels, and how they join tensors.

f(Mx) = M f(x) for any matrix M over the channels, axis 1: sums of such tensors, averages over
positions, interpolation, products with one number. A constant that is added is part of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.facts import Facts

CHANNELS = 1


@dataclass(frozen=True)
class Join:
    """A node that only passes linear tensors on.

    Attributes:
        tensors: inputs and output, all in one basis.
        added: constants that are to be brought into it: input slot, and their axis of channels.
    """

    tensors: tuple[str, ...]
    added: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Graph:
    """A model and what is known of its tensors at two sizes."""

    constants: Constants
    facts: tuple[Facts, Facts]

    def shape(self, name: str) -> tuple[int, ...]:
        """At the first size; () where unknown."""
        return tuple(self.facts[0].shapes.get(name, ()))

    def keeps(self, source: str, target: str) -> bool:
        """Whether batch and channels of two tensors agree, at both sizes."""
        shapes = [[f.shapes.get(name, ()) for name in (source, target)] for f in self.facts]
        return all(len(a) > 1 and len(b) > 1 and a[:2] == b[:2] for a, b in shapes)


def join(graph: Graph, node: onnx.NodeProto) -> Join | None:
    """How a node joins what it reads and makes; None where it is no such node."""
    rule = _RULES.get(node.op_type)
    if rule is None or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return None
    return rule(graph, node)


def _single(graph: Graph, node: onnx.NodeProto) -> Join | None:
    """One tensor in, one out, with the same batch and channels."""
    if any(node.input[2:]) and node.op_type == "Dropout":
        return None  # it may be told to train
    if node.input[0] in graph.constants or not graph.keeps(node.input[0], node.output[0]):
        return None
    return Join((node.input[0], node.output[0]))


def _sum(graph: Graph, node: onnx.NodeProto) -> Join | None:
    """Operands of all channels; a constant has one value for each, or is zero."""
    out = graph.shape(node.output[0])
    if len(out) <= CHANNELS:
        return None
    tensors, added = [node.output[0]], []
    for slot, name in enumerate(node.input):
        if name not in graph.constants:
            same_rank = len(graph.shape(name)) == len(out)
            if not same_rank or not graph.keeps(name, node.output[0]):
                return None
            tensors.append(name)
            continue
        shape = graph.constants.shape(name)
        axis = len(shape) - len(out) + CHANNELS
        if len(shape) <= len(out) and axis >= 0 and shape[axis] == out[CHANNELS]:
            added.append((slot, axis))
        elif graph.constants.value(name, keep=False).any():
            return None
    return Join(tuple(tensors), tuple(added)) if len(tensors) > 1 else None


def _scaled(graph: Graph, node: onnx.NodeProto) -> Join | None:
    """A product with one number."""
    data = [name for name in node.input if name not in graph.constants]
    if len(data) != 1 or (node.op_type == "Div" and data[0] != node.input[0]):
        return None
    others = [name for name in node.input if name in graph.constants]
    if len(others) != 1 or int(np.prod(graph.constants.shape(others[0]))) != 1:
        return None
    return Join((data[0], node.output[0])) if graph.keeps(data[0], node.output[0]) else None


def _reduced(graph: Graph, node: onnx.NodeProto) -> Join | None:
    """A mean or sum over positions."""
    rank = len(graph.shape(node.input[0]))
    axes = _integers(graph, node, 1, "axes")
    if not axes or any(a % max(rank, 1) <= CHANNELS for a in axes):
        return None
    return _single(graph, node)


def _padded(graph: Graph, node: onnx.NodeProto) -> Join | None:
    """Zeros around the positions, or copies of them."""
    attrs = attributes(node)
    pads = _integers(graph, node, 1, "pads")
    if len(node.input) > 3 and node.input[3]:
        return None
    rank = len(graph.shape(node.input[0]))
    if pads is None or len(pads) != 2 * rank or any(pads[i] for i in (0, 1, rank, rank + 1)):
        return None
    if attrs.get("mode", b"constant") == b"constant":
        value = attrs.get("value", 0.0)
        if len(node.input) > 2 and node.input[2]:
            if node.input[2] not in graph.constants:
                return None
            value = float(graph.constants.value(node.input[2]).reshape(-1)[0])
        if value != 0.0:
            return None
    return _single(graph, node)


def _resized(graph: Graph, node: onnx.NodeProto) -> Join | None:
    if float(attributes(node).get("extrapolation_value", 0.0)) != 0.0:
        return None
    return _single(graph, node)


def _flattened(graph: Graph, node: onnx.NodeProto) -> Join | None:
    """(N, c, 1, 1) to (N, c)."""
    for facts in graph.facts:
        before = facts.shapes.get(node.input[0], ())
        if any(n != 1 for n in before[2:]) or len(facts.shapes.get(node.output[0], ())) != 2:
            return None
    return _single(graph, node)


def _integers(graph: Graph, node: onnx.NodeProto, slot: int, name: str) -> list[int] | None:
    """A list that is an input of newer operators and an attribute of older ones."""
    if len(node.input) > slot and node.input[slot]:
        if node.input[slot] not in graph.constants:
            return None
        return [int(i) for i in graph.constants.value(node.input[slot]).reshape(-1)]
    found: Sequence[int] | None = attributes(node).get(name)
    return None if found is None else [int(i) for i in found]


_RULES: dict[str, Callable[[Graph, onnx.NodeProto], Join | None]] = {
    **dict.fromkeys(("Identity", "Neg", "Dropout"), _single),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool"), _single),
    **dict.fromkeys(("Add", "Sub", "Sum"), _sum),
    **dict.fromkeys(("Mul", "Div"), _scaled),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _reduced),
    **dict.fromkeys(("Resize", "Upsample"), _resized),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze"), _flattened),
    "Pad": _padded,
}
