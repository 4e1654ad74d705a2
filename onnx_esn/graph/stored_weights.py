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
    computed = [
        i
        for i, node in enumerate(model.graph.node)
        if node.op_type in _LAYERS and node.input[1] not in constants
    ]
    if not computed:
        return model
    fold = _Folding(model, constants)
    values = {i: fold.value(model.graph.node[i].input[1]) for i in computed}
    found = {i: value for i, value in values.items() if value is not None}
    if not found:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = Names(copy.graph)
    stored: dict[str, str] = {}
    for i, value in found.items():
        node = copy.graph.node[i]
        weight = node.input[1]
        if weight not in stored:
            stored[weight] = names.fresh(f"{weight}_stored")
            add_initializer(copy, numpy_helper.from_array(value, stored[weight]))
        node.input[1] = stored[weight]
    return copy


class _Folding:
    def __init__(self, model: onnx.ModelProto, constants: Constants) -> None:
        self.constants = constants
        self.makers = {o: node for node in model.graph.node for o in node.output if o}
        self.known: dict[str, NDArray[np.generic] | None] = {}

    def value(self, name: str) -> NDArray[np.generic] | None:
        """Value of a tensor that no graph input reaches; None for any other."""
        if name in self.constants:
            try:
                return self.constants.value(name)
            except EvaluationError:
                return None
        if name not in self.known:
            self.known[name] = None  # and so it stays where there is a circle or no maker
            node = self.makers.get(name)
            if node is not None and node.op_type not in _NEVER and not node.domain:
                self._evaluate(node)
        return self.known[name]

    def _evaluate(self, node: onnx.NodeProto) -> None:
        inputs = [self.value(i) if i else None for i in node.input]
        if any(i and x is None for i, x in zip(node.input, inputs, strict=True)):
            return
        try:
            outputs = evaluate_node(node, inputs, self.constants.opset.get("", 1))
        except EvaluationError:
            return
        self.known.update({o: v for o, v in zip(node.output, outputs, strict=False) if o})


_NEVER = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial", "Dropout", "If", "Loop", "Scan",
}  # fmt: skip
