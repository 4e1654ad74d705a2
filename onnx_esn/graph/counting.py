"""Whether the size of what a node gives depends on the values of the data, not on shapes alone.

A detector's NonMaxSuppression lets as many boxes through as it finds, a Slice ends where an ArgMax
says, and a decoder's Loop runs until it has read the last word.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

import onnx

from onnx_esn.graph.hoisting import subgraphs
from onnx_esn.graph.readers import downstream, reads_any
from onnx_esn.graph.shapes import COUNTING

# Nodes that give numbers about shapes, whatever the values are.
_OF_SHAPES = ("Shape", "Size")
# Which inputs say how large the result is.
_SIZING = {
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Upsample": (1,),
}


def depending(nodes: Iterable[onnx.NodeProto], values: Iterable[str]) -> set[str]:
    """These tensors and what depends on their values, shapes aside; nodes in order."""
    return downstream(nodes, values, not_by=_OF_SHAPES)


def counts(node: onnx.NodeProto, values: Set[str]) -> bool:
    """Whether the size of a node's results depends on the values of these tensors."""
    if node.op_type in COUNTING:
        return reads_any(node, values)
    if node.op_type == "Loop":
        return _stops_by(node, values)
    sizing = _SIZING.get(node.op_type, ())
    return any(i < len(node.input) and node.input[i] in values for i in sizing)


def _stops_by(loop: onnx.NodeProto, values: Set[str]) -> bool:
    """Whether these decide how often a Loop runs: before it begins, or by its condition."""
    if any(name in values for name in loop.input[:2]):
        return True
    body = subgraphs(loop).get("body")
    if body is None or len(body.output) < len(loop.input) - 1:
        return False
    carried = list(zip(body.input[2:], body.output[1:], loop.input[2:], strict=False))
    inner = set(values) - {x.name for x in body.input}
    inner |= {mine.name for mine, _, given in carried if given in values}
    while True:
        found = depending(body.node, inner)
        # What one turn hands to the next.
        later = {mine.name for mine, given, _ in carried if given.name in found}
        if later <= inner:
            return body.output[0].name in found
        inner |= later
