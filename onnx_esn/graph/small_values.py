"""Values of small tensors, worked out node by node: shape arithmetic is folded."""

from __future__ import annotations

import logging
import math

import numpy as np
import onnx

from onnx_esn.graph.evaluate import EvaluationError, attributes, evaluate_node, is_standard
from onnx_esn.graph.facts import SMALL, Facts
from onnx_esn.graph.node_names import describe

log = logging.getLogger(__name__)

_UNFOLLOWED = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial", "If", "Loop", "Scan",
}  # fmt: skip


def follow_values(node: onnx.NodeProto, facts: Facts, opset: int) -> None:
    """Learn the values of a node's outputs where those of its inputs are known."""
    if not is_standard(node) or not node.output:
        return
    out = node.output[0]
    if node.op_type in ("Shape", "Size"):
        shape = facts.shapes.get(node.input[0])
        if shape is not None:
            attrs = attributes(node)
            if node.op_type == "Size":
                value = np.asarray(math.prod(shape), np.int64)
            else:
                value = np.asarray(shape[attrs.get("start", 0) : attrs.get("end")], np.int64)
            facts.values[out] = value
        return
    if node.op_type in _UNFOLLOWED or any(i and i not in facts.values for i in node.input):
        return
    if any(math.prod(facts.shapes.get(o, ())) > SMALL for o in node.output):
        return
    try:
        values = [facts.values[i] if i else None for i in node.input]
        results = evaluate_node(node, values, opset, SMALL)
    except EvaluationError as error:
        log.debug("not folded: %s: %s", describe(node), error)
        return
    for name, value in zip(node.output, results, strict=False):
        if name and value.size <= SMALL and value.dtype != object:
            facts.values[name] = value
