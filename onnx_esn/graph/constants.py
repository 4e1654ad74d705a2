"""Which tensors of a graph are constant, and their values on demand."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_esn.graph.evaluate import evaluate_node

Array = NDArray[np.generic]

# These draw new values at each run, or depend on the shape of a tensor that may be sliced.
_NOT_CONSTANT = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial", "Dropout", "Shape", "Size", "If", "Loop", "Scan",
}  # fmt: skip
_KEPT = 1 << 16  # elements


def operator_sets(model: onnx.ModelProto) -> dict[str, int]:
    """Version of each operator set, by domain; the default one has two names."""
    return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}


class Constants:
    """The constant tensors of the main graph.

    A tensor is constant when it is an initializer, the output of a Constant node, or computed
    from constants only. Values are computed when asked for and kept, but for large stored ones.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.opset = operator_sets(model)
        self.initializers = {t.name: t for t in model.graph.initializer}
        self.producer: dict[str, onnx.NodeProto] = {}
        self._values: dict[str, Array] = {}
        for node in model.graph.node:
            if self._folds(node):
                for name in node.output:
                    if name:
                        self.producer[name] = node

    def _folds(self, node: onnx.NodeProto) -> bool:
        if node.op_type in _NOT_CONSTANT or node.domain not in ("", "ai.onnx"):
            return False
        return all(not name or name in self for name in node.input)

    def adopt(self, node: onnx.NodeProto, value: Array) -> None:
        """Count the only output of a node as constant: it is `value` at any size of the input."""
        (name,) = node.output
        self.producer[name], self._values[name] = node, value

    def __contains__(self, name: str) -> bool:
        return name in self.initializers or name in self.producer

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a constant, without reading its values where they are stored."""
        if name in self.initializers:
            return tuple(self.initializers[name].dims)
        return self.value(name).shape

    def value(self, name: str) -> Array:
        """Value of a constant; raises KeyError when `name` is not one."""
        if name not in self._values:
            if name in self.initializers:
                value = numpy_helper.to_array(self.initializers[name])
                if value.size > _KEPT:
                    return value  # large ones are read again rather than held twice
                self._values[name] = value
            else:
                node = self.producer[name]
                inputs = [self.value(i) if i else None for i in node.input]
                outputs = evaluate_node(node, inputs, self.opset.get("", 1))
                self._values.update(zip(node.output, outputs, strict=False))
        return self._values[name]

    def root(self, name: str) -> str:
        """The initializer behind a chain of Identity nodes, or `name` itself."""
        while name in self.producer and self.producer[name].op_type == "Identity":
            name = self.producer[name].input[0]
        return name
