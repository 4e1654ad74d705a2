"""Weights that a model computes anew at each run, although nothing of them depends on its input.

Weight standardisation exported without constant folding: the shape of the weight is asked for, the
weight reshaped, normalized and shaped back. Such a weight is computed once and stored.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import EvaluationError, evaluate_node
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.stored import add_initializer, without_stored
from onnx_esn.graph.unread import drop, left_behind, reads

_LAYERS = ("Conv", "ConvTranspose")


def with_stored_weights(model: onnx.ModelProto, *, owned: bool = False) -> onnx.ModelProto:
    """The model itself, or a copy in which the layers read such weights as stored tensors.

    Args:
        model: the model.
        owned: nobody else has it: change it in place.
    """
    constants = Constants(model)
    weights = {
        node.input[1]
        for node in model.graph.node
        if node.op_type in _LAYERS and node.input[1] not in constants
    }
    values = _values(model, constants, weights)
    if not values:
        return model
    names = Names(model.graph)
    stored = {weight: names.fresh(f"{weight}_stored") for weight in sorted(values)}
    result = _lightened(model, stored, owned=owned)
    for weight, name in stored.items():
        add_initializer(result, numpy_helper.from_array(values.pop(weight), name))
    for node in result.graph.node:
        if node.op_type in _LAYERS and node.input[1] in stored:
            node.input[1] = stored[node.input[1]]
    return result


def _lightened(model: onnx.ModelProto, stored: Container[str], *, owned: bool) -> onnx.ModelProto:
    """The model, or a copy, without what only the way to a stored weight reads.

    Left in, the weights it was computed from would stay in every model made from this one.
    """
    used = reads(model)
    before = set(used)
    for node in model.graph.node:
        if node.op_type in _LAYERS and node.input[1] in stored:
            used[node.input[1]] -= 1
    nodes, tensors = left_behind(model, before, used)
    if owned:
        drop(model, nodes, tensors)
        return model
    result = without_stored(model, nodes=False)  # which never gives memory back: no full copy
    result.graph.node.extend(n for i, n in enumerate(model.graph.node) if i not in nodes)
    result.graph.initializer.extend(t for t in model.graph.initializer if t.name not in tensors)
    drop(result, set(), tensors)  # inputs of an older format
    return result


def _values(
    model: onnx.ModelProto, constants: Constants, wanted: set[str]
) -> dict[str, NDArray[np.generic]]:
    """Values of those of the wanted tensors that no graph input reaches."""
    needed = set(wanted)
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(i for i in node.input if i)
    known: dict[str, NDArray[np.generic]] = {}
    run = [
        node
        for node in (model.graph.node if wanted else ())
        if not node.domain
        and node.op_type not in _NEVER
        and needed.intersection(node.output)
        and not any(o in constants for o in node.output)
    ]
    last = {name: node for node in run for name in node.input}

    def read(name: str) -> NDArray[np.generic]:
        if name not in known:
            known[name] = constants.value(name, keep=False)
        return known[name]

    for node in run:
        if not all(not i or i in known or i in constants for i in node.input):
            continue
        try:
            inputs = [read(i) if i else None for i in node.input]
            outputs = evaluate_node(node, inputs, constants.opset.get("", 1))
            known.update({o: v for o, v in zip(node.output, outputs, strict=False) if o})
        except EvaluationError:
            pass
        for name in node.input:  # each step towards a weight is as large as the weight
            if last[name] is node and name not in wanted:
                known.pop(name, None)
    return {name: known[name] for name in wanted if name in known}


_NEVER = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial", "Dropout", "If", "Loop", "Scan",
}  # fmt: skip
