"""Numbers that a model computes from a channel count keep the values they had.

√C, 1/(C·H·W): they are part of what the model computes, not of how it lays out its tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels, Mask
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.rewrite.repair_site import RepairError

Array = NDArray[Any]
_RTOL = 1e-6
_COMPARING = (
    "Clip", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Sign",
)  # fmt: skip


def keep_numbers(
    analysis: Analysis,
    node: onnx.NodeProto,
    now: Sequence[Facts],
    store: Callable[[Array, str], str],
    fresh: Callable[[str], str],
) -> list[onnx.NodeProto]:
    """Give a node the numbers it had; what has to be computed before it comes back.

    Args:
        analysis: the original model.
        node: a node of the rewritten graph, whose inputs are edited.
        now: facts of the rewritten graph up to it, at two sizes.
        store: stores a constant under a name like the given one, and returns its name.
        fresh: makes an unused name.

    Raises:
        RepairError: a number also depends on the size of the input, in another way than by a
            constant factor.
    """
    added: list[onnx.NodeProto] = []
    for slot, name in enumerate(node.input):
        if not name or name in analysis.constants or name in analysis.propagation.labels:
            continue
        a, b = (f.values.get(name) for f in (analysis.facts, analysis.other))
        if a is None or b is None:
            continue
        x, y = (f.values.get(name) for f in now)
        if x is not None and y is not None and np.array_equal(x, a) and np.array_equal(y, b):
            continue
        if np.array_equal(a, b):
            node.input[slot] = store(a, f"{name}_fixed")
            continue
        factor = _factor(a, b, x, y)
        if factor is None:
            raise RepairError(f"{name!r} is computed from a channel count and the input's size")
        scaled = fresh(f"{name}_scaled")
        inputs = [name, store(factor, f"{name}_factor")]
        added.append(helper.make_node("Mul", inputs, [scaled], name=scaled))
        node.input[slot] = scaled
    return added


def check_comparison(analysis: Analysis, node: onnx.NodeProto, now: Sequence[Facts]) -> None:
    """Refuse a comparison of a number that moves with the channels and with the input's size.

    It may come out the same at both sizes that are looked at, and otherwise at a third.

    Raises:
        RepairError: the node is such a comparison.
    """
    if node.op_type not in _COMPARING:
        return
    for name in node.input:
        a, b = (f.values.get(name) for f in (analysis.facts, analysis.other))
        x = now[0].values.get(name)
        if a is None or b is None or name in analysis.constants:
            continue
        if x is None or not a.shape == b.shape == x.shape or ((a != b) & (a != x)).any():
            raise RepairError(f"{name!r} counts channels and pixels, and is compared")


def _factor(a: Array, b: Array, x: Array | None, y: Array | None) -> Array | None:
    """What the new value has to be multiplied with, if that is the same at both sizes."""
    if (
        x is None
        or y is None
        or a.dtype.kind != "f"
        or not a.shape == b.shape == x.shape == y.shape
    ):
        return None
    if (x == 0).any() or (y == 0).any():
        return None
    one, other = a / x, b / y
    same = np.isfinite(one).all() and np.allclose(one, other, rtol=_RTOL, atol=0)
    return one.astype(a.dtype) if same else None


def counted_labels(analysis: Analysis, name: str, removed: Mask) -> Labels:
    """Removed labels of the tensors whose shapes a number is computed from."""
    nodes, p = analysis.model.graph.node, analysis.propagation
    found: list[Labels] = []
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        tensor = waiting.pop()
        index = p.producers.get(tensor, -1)
        if tensor in seen or index < 0:
            continue
        seen.add(tensor)
        if nodes[index].op_type in ("Shape", "Size"):
            labels = p.labels.get(nodes[index].input[0])
            if labels is not None:
                found.append(labels[removed[labels]])
        else:
            waiting += [i for i in nodes[index].input if i in analysis.facts.values]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
