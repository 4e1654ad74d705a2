"""Weights that a model computes anew at each run, although nothing of them depends on its input.

Weight standardisation exported without constant folding: the shape of the weight is asked for, the
weight reshaped, normalized and shaped back. Such a weight is computed once and stored.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import EvaluationError, evaluate_node
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.stored import add_initializer

_LAYERS = ("Conv", "ConvTranspose")


def with_stored_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or a copy in which the layers read such weights as stored tensors."""
    constants = Constants(model)
    weights = {
        node.input[1]
        for node in model.graph.node
        if node.op_type in _LAYERS and node.input[1] not in constants
    }
    values = _values(model, constants, weights)
    if not values:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = Names(copy.graph)
    stored = {weight: names.fresh(f"{weight}_stored") for weight in sorted(values)}
    for weight, name in stored.items():
        add_initializer(copy, numpy_helper.from_array(values[weight], name))
    for node in copy.graph.node:
        if node.op_type in _LAYERS and node.input[1] in stored:
            node.input[1] = stored[node.input[1]]
    return copy


def _values(
    model: onnx.ModelProto, constants: Constants, wanted: set[str]
) -> dict[str, NDArray[np.generic]]:
    """Values of those of the wanted tensors that no graph input reaches."""
    needed = set(wanted)
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(i for i in node.input if i)
    known: dict[str, NDArray[np.generic]] = {}

    def read(name: str) -> NDArray[np.generic] | None:
        return constants.value(name) if name in constants else known.get(name)

    for node in model.graph.node if wanted else ():
        if node.op_type in _NEVER or node.domain or not needed.intersection(node.output):
            continue
        if any(o in constants for o in node.output):
            continue
        try:
            inputs = [read(i) if i else None for i in node.input]
            if all(x is not None for i, x in zip(node.input, inputs, strict=True) if i):
                outputs = evaluate_node(node, inputs, constants.opset.get("", 1))
                known.update({o: v for o, v in zip(node.output, outputs, strict=False) if o})
        except EvaluationError:
            continue
    return {name: known[name] for name in wanted if name in known}


_NEVER = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial", "Dropout", "If", "Loop", "Scan",
}  # fmt: skip
