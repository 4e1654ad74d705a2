"""Which node of one model is which of another: by name, and by structure where names say nothing.

Names may also say something wrong: exporters number nodes, and a model with its BatchNormalization
folded numbers them otherwise. So names are checked against the structure, and where the two
disagree, the side whose layers have more similar weights is believed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.graph.layers import OPERATORS

from .structure import match_inputs, pair_by_structure
from .wiring import TRANSPARENT, Wiring

_AT_ONCE = 1 << 20  # weights turned into float64 at a time


@dataclass(frozen=True)
class Pairing:
    """Nodes and tensors that belong together.

    Attributes:
        nodes: index in the second model by index in the first.
        tensors: name in the second model by name in the first, of graph inputs and of what paired
            nodes make.
        roots: the same of the tensors at the start of chains of nodes that only pass them on.
        renumbered: whether names were set aside because the structure contradicts them.
    """

    nodes: Mapping[int, int]
    tensors: Mapping[str, str]
    roots: Mapping[str, str]
    renumbered: bool


def pair_nodes(a: Wiring, b: Wiring) -> Pairing:
    """Pair the nodes of the main graphs of two models."""
    named = _by_name(a, b)
    bare = pair_by_structure(a, b, {})
    against = [i for i, j in named.items() if bare.get(i, j) != j]
    renumbered = bool(against) and _likeness(a, b, {i: bare[i] for i in against}) > _likeness(
        a, b, {i: named[i] for i in against}
    )
    if renumbered:
        free = set(bare.values())
        named = bare | {
            i: j
            for i, j in named.items()
            if i not in bare and j not in free and a.nodes[i].op_type == b.nodes[j].op_type
        }
    nodes = dict(sorted(pair_by_structure(a, b, named).items()))
    tensors = match_inputs(a, b)
    roots = dict(tensors)
    for i, j in nodes.items():
        for mine, theirs in zip(a.nodes[i].output, b.nodes[j].output, strict=False):
            if mine and theirs:
                tensors[mine] = theirs
                roots.setdefault(a.root(mine), b.root(theirs))
    return Pairing(nodes, tensors, roots, renumbered)


def _by_name(a: Wiring, b: Wiring) -> dict[int, int]:
    """By the node's name, then by that of its output, then by that of its weight."""
    pairs: dict[int, int] = {}
    for names in (_names, _outputs, _weights):
        first, second = names(a), names(b)
        taken = set(pairs.values())
        for name, i in first.items():
            j = second.get(name)
            if i in pairs or j is None or j in taken:
                continue
            op, other = a.nodes[i].op_type, b.nodes[j].op_type
            # A node may have become another operator under its name, but not one that passes on.
            if op == other or (names is _names and not {op, other} & set(TRANSPARENT)):
                pairs[i] = j
    return pairs


def _names(wiring: Wiring) -> dict[str, int]:
    return _unique((name, index) for index, name in enumerate(wiring.names))


def _outputs(wiring: Wiring) -> dict[str, int]:
    return _unique((n.output[0], i) for i, n in enumerate(wiring.nodes) if n.output)


def _weights(wiring: Wiring) -> dict[str, int]:
    """By operator, name and kernel of the weight, where one node alone reads it."""
    found = []
    for index, node in enumerate(wiring.nodes):
        weight = _weight(wiring, index)
        shape = None if weight is None else wiring.shape(weight)
        if weight is not None and shape is not None:
            found.append((f"{node.op_type} {wiring.constants.root(weight)} {shape[2:]}", index))
    return _unique(found)


def _unique(found: Iterable[tuple[str, int]]) -> dict[str, int]:
    entries = list(found)
    count = Counter(name for name, _ in entries)
    return {name: index for name, index in entries if count[name] == 1}


def _weight(wiring: Wiring, index: int) -> str | None:
    node = wiring.nodes[index]
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
        return None
    constant = [name for name in node.input[:2] if name in wiring.constants]
    return constant[0] if len(constant) == 1 else None


def _likeness(a: Wiring, b: Wiring, pairs: Mapping[int, int]) -> float:
    """How much paired nodes are alike: the cosine of their weights, −1 where they cannot be one."""
    total = 0.0
    for i, j in pairs.items():
        first, second = _weight(a, i), _weight(b, j)
        x = None if first is None else a.value(first)
        y = None if second is None else b.value(second)
        if a.nodes[i].op_type != b.nodes[j].op_type:
            total -= 1
        elif x is None or y is None:
            continue
        elif x.shape[2:] != y.shape[2:]:
            total -= 1
        elif x.shape == y.shape:
            total += _cosine(x.reshape(-1), y.reshape(-1))
    return total


def _cosine(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    """Of two vectors; 0 where one is 0."""
    dot = first = second = 0.0
    for start in range(0, x.size, _AT_ONCE):
        u, v = (z[start : start + _AT_ONCE].astype(np.float64) for z in (x, y))
        dot, first, second = dot + float(u @ v), first + float(u @ u), second + float(v @ v)
    norm = (first * second) ** 0.5
    return dot / norm if norm else 0.0
