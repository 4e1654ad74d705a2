"""Let convolutions pad for themselves: a Pad in front of one costs a copy, forward and back."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.facts import Facts


def fuse_pads(graph: onnx.GraphProto, facts: Facts) -> None:
    """Take zeros that a Pad puts around places into the Conv behind it, where no other reads it."""
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    used: dict[str, int] = {}
    for name in (*(n for node in graph.node for n in node.input), *(o.name for o in graph.output)):
        used[name] = used.get(name, 0) + 1
    gone = set()
    for node in graph.node:
        pad = pads.get(node.input[0]) if node.op_type == "Conv" else None
        if pad is not None and used[pad.output[0]] == 1 and _taken_over(node, pad, facts):
            gone.add(pad.output[0])
    kept = [node for node in graph.node if not (node.output and node.output[0] in gone)]
    del graph.node[:]
    graph.node.extend(kept)


def _taken_over(conv: onnx.NodeProto, pad: onnx.NodeProto, facts: Facts) -> bool:
    attrs, own = attributes(conv), attributes(pad)
    if own.get("mode", b"constant") not in (b"constant", "constant"):
        return False
    if attrs.get("auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET"):
        return False
    inputs = [*pad.input, "", "", ""][:4]
    if any(name and name not in facts.values for name in inputs[1:]) or inputs[3]:
        return False
    if inputs[2] and np.any(facts.values[inputs[2]]):
        return False
    pads = [int(p) for p in facts.values[inputs[1]]]
    half = len(pads) // 2
    rank = half - 2
    if rank < 1 or any((*pads[:2], *pads[half : half + 2])) or min(pads) < 0:
        return False
    mine = [int(p) for p in attrs.get("pads", [0] * 2 * rank)]
    total = [a + b for a, b in zip(mine, (*pads[2:half], *pads[half + 2 :]), strict=True)]
    kept = [a for a in conv.attribute if a.name not in ("pads", "auto_pad")]
    del conv.attribute[:]
    conv.attribute.extend([*kept, helper.make_attribute("pads", total)])
    conv.input[0] = pad.input[0]
    return True
