"""Numbers for operators that work position by position: an equal operation on equal operands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.number_formats import EPSILON
from onnx_esn.passes.exact.ranges import combined, rises
from onnx_esn.passes.exact.values import Floats, Ids
from onnx_esn.passes.exact.walk import Walk, run_node, typed


def elementwise(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Any operator that works position by position on broadcast operands."""
    out = node.output[0]
    axes, rank = walk.axes(out), len(walk.shape(out))
    names = [n for n in node.input if n]
    views = [walk.view(n, axes, rank) for n in names]
    sizes = [n if a in axes else 1 for a, n in enumerate(walk.shape(out))]
    table = np.stack([np.broadcast_to(v, sizes).reshape(-1) for v in views], axis=1)
    rests = tuple(walk.rest(n, axes, rank) for n in names)
    slots = tuple(bool(n) for n in node.input)
    kind = walk.analysis.facts.types.get(out)
    ids = walk.keyed((walk.signature(node), rests, slots, kind), table)
    known = walk.values.constants(table)
    if node.op_type == "Mul":
        nothing = (known == 0).any(axis=1)
        ids[nothing] = walk.values.constant(0.0)
    still = ~np.isnan(known).any(axis=1)
    if still.any():
        ids[still] = _evaluated(walk, node, known[still])
    ids[~still] = _bounded(walk, node, ids, table)[~still]
    walk.put(out, ids.reshape(sizes))


def _bounded(walk: Walk, node: onnx.NodeProto, ids: Ids, table: Ids) -> Ids:
    """Numbers (P,) with their ranges, from those of the operands (P, operands)."""
    kinds = walk.analysis.facts.types
    names = [n for n in (*node.input, node.output[0]) if n]
    if any(kinds.get(n) not in EPSILON for n in names):
        return ids
    low, high = walk.values.ranges(table)
    rising = rises(node) or node.op_type == "Cast"
    if node.op_type == "PRelu":
        rising = (
            bool((low[:, 1] >= 0).all()) and not np.isnan(walk.values.constants(table[:, 1])).any()
        )
    if rising:
        return walk.values.within(ids, _run(walk, node, low), _run(walk, node, high))
    found = combined(node.op_type, list(zip(low.T, high.T, strict=True)))
    return ids if found is None else walk.values.within(ids, *found)


def _evaluated(walk: Walk, node: onnx.NodeProto, known: Floats) -> Ids:
    """Numbers of constants (P,): the node run on constant operands (P, operands)."""
    return walk.constant_ids(_run(walk, node, known))


def _run(walk: Walk, node: onnx.NodeProto, operands: Floats) -> Floats:
    """The node run on values (P, operands) of its operands."""
    inputs: list[NDArray[Any] | None] = []
    column = 0
    for name in node.input:
        if not name:
            inputs.append(None)
            continue
        kind = walk.analysis.facts.types[name]
        x = typed(operands[:, column], kind)
        if name in walk.analysis.constants and math.prod(walk.shape(name)) == 1:
            x = x[0].reshape(())  # bounds of Clip, for one, are scalars
        inputs.append(x)
        column += 1
    return np.broadcast_to(run_node(walk, node, inputs), len(operands))


def dropout(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Nothing happens, except in training."""
    if len(node.input) > 2 and node.input[2]:
        value = walk.analysis.facts.values.get(node.input[2])
        if value is None or value.any():
            return
    walk.put(node.output[0], walk.ids[node.input[0]])
