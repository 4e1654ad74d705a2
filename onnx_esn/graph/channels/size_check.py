"""Do labels lie the same way at another size?

The graph is labelled at one size. Where channels share an axis with the batch or with pixels
(reshaped into one another), the label of a position may depend on the size; then nothing there
may go.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx_esn.graph.channels.labels import Labels, LabelSpace
from onnx_esn.graph.channels.propagation import Propagation, Rule, propagate
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.movement import MovementError, reshape_blocks

_REASON = "where its channels lie depends on the size of the input"


def lock_what_moves(p: Propagation, other: Facts, rules: dict[str, Rule]) -> None:
    """Lock the labels of tensors that are laid out differently at the `other` size.

    An axis may be longer there, if it repeats the same labels: all of them, or each by itself.
    """
    moves = any(_moves(name, x, p.facts, other) for name, x in p.labels.items())
    if not moves and not any(_mixes(p, node, other) for node in p.model.graph.node):
        return
    q = propagate(p.model, p.constants, other, rules, p.space.known)
    here, there = _filters(p.space), _filters(q.space)
    for name in p.labels.keys() | q.labels.keys():
        a, b = p.labels.get(name), q.labels.get(name)
        if a is not None and b is not None and _alike(here[a], there[b]):
            continue
        p.space.lock(a, _REASON)
        if b is not None:
            p.space.lock(np.flatnonzero(np.isin(here, np.unique(there[b])) & (here > 0)), _REASON)


def _moves(name: str, x: Labels, facts: Facts, other: Facts) -> bool:
    a, b = facts.shapes.get(name), other.shapes.get(name)
    if a is None or b is None or len(a) != len(b):
        return True
    return any(x.shape[axis] > 1 and a[axis] != b[axis] for axis in range(x.ndim))


def _mixes(p: Propagation, node: onnx.NodeProto, other: Facts) -> bool:
    """Whether a Reshape puts channels and an axis that changes into one."""
    if node.op_type not in ("Reshape", "Flatten") or node.input[0] not in p.labels:
        return False
    name, out = node.input[0], node.output[0]
    a, b = p.facts.shapes, other.shapes
    if any(n not in shapes for n in (name, out) for shapes in (a, b)):
        return True
    if len(a[name]) != len(b[name]) or len(a[out]) != len(b[out]):
        return True
    try:
        blocks = reshape_blocks(a[name], a[out])
    except MovementError:
        return True
    labels = p.labels[name]
    return any(
        any(labels.shape[k] > 1 for k in before)
        and (
            any(a[name][k] != b[name][k] for k in before)
            or any(a[out][k] != b[out][k] for k in after)
        )
        for before, after in blocks
    )


def _filters(space: LabelSpace) -> Labels:
    """Per label: which filter of which node it is, as one number; 0 for label 0."""
    codes = np.zeros(space.count + 1, np.int64)
    for first, n, node in space.issued:
        codes[first : first + n] = ((node + 1) << 32) + np.arange(n)
    return codes


def _alike(a: Labels, b: Labels) -> bool:
    if a.ndim != b.ndim:
        return False
    for axis in range(a.ndim):
        m, n = a.shape[axis], b.shape[axis]
        if m != n:
            a, b = _shortest(a, axis), _shortest(b, axis)
    return bool(np.array_equal(a, b))


def _shortest(x: Labels, axis: int) -> Labels:
    """`x` with the repetitions along an axis taken out, whether of the whole or of each part."""
    n = x.shape[axis]
    lines = np.moveaxis(x, axis, 0)
    for length in (d for d in range(1, n) if n % d == 0):
        if (lines.reshape(n // length, length, -1) == lines[:length].reshape(1, length, -1)).all():
            return np.moveaxis(lines[:length], 0, axis)
        each = lines[:: n // length]
        if (np.repeat(each, n // length, axis=0) == lines).all():
            return np.moveaxis(each, 0, axis)
    return x
