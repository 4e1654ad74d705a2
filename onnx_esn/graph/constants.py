"""Which tensors of a graph are constant, and their values on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.evaluate import EvaluationError, evaluate_node, is_standard
from onnx_esn.graph.growth import products
from onnx_esn.graph.node_names import describe
from onnx_esn.graph.quant_operators import is_quant
from onnx_esn.graph.stored import constant_value
from onnx_esn.outside import tensor_values

Array = NDArray[np.generic]

# These draw new values at each run, or depend on the shape of a tensor that may be sliced.
_NOT_CONSTANT = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial", "Dropout", "Shape", "Size", "If", "Loop", "Scan",
}  # fmt: skip
# These compute nothing: to do it again takes no longer than to read what is stored.
_MOVES = {
    "Cast", "Constant", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
_KEPT = 1 << 16  # elements
_MOST_HELD = 1 << 28  # elements of computed values; what comes after is computed again
_MOST_GROWN = 1 << 28  # elements that are computed from fewer
_MOST_MULTIPLIED = 1 << 37  # multiplications; some seconds


def operator_sets(model: onnx.ModelProto) -> dict[str, int]:
    """Version of each operator set, by domain; the default one has two names."""
    return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}


class Constants:
    """The constant tensors of the main graph.

    A tensor is constant when it is an initializer, the output of a Constant node, or computed
    from constants only. Values are computed when asked for and kept, but for large ones that are
    stored, or are only another view of what is stored.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.opset = operator_sets(model)
        self.initializers = {t.name: t for t in model.graph.initializer}
        self.producer: dict[str, onnx.NodeProto] = {}
        self._values: dict[str, Array] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._held = self._grown = self._multiplied = 0
        for node in model.graph.node:
            if self._folds(node):
                for name in node.output:
                    if name:
                        self.producer[name] = node

    def _folds(self, node: onnx.NodeProto) -> bool:
        if node.op_type in _NOT_CONSTANT:
            return False
        if not is_standard(node) and not is_quant(node):
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
        if name not in self._shapes and name not in self._values:
            tensor = constant_value(self.producer[name])
            self._shapes[name] = self.value(name).shape if tensor is None else tuple(tensor.dims)
        return self._values[name].shape if name in self._values else self._shapes[name]

    def value(self, name: str, *, keep: bool = True) -> Array:
        """Value of a constant; raises KeyError when `name` is not one.

        Args:
            name: the tensor.
            keep: whether it will be asked for again; a small one is kept anyway.
        """
        if name in self._values:
            return self._values[name]
        if name in self.initializers:
            value = tensor_values(self.initializers[name])
            if value.size <= _KEPT:  # large ones are read again rather than held twice
                self._values[name] = value
            return value
        value = self._computed(name)
        if keep and self.producer[name].op_type not in _MOVES and self._held < _MOST_HELD:
            self._held += value.size
            self._values[name] = value
        return value

    def _computed(self, name: str) -> Array:
        """Compute a constant; what is large on the way is dropped after its last use."""
        steps = self._steps(name)
        left = Counter(i for node in steps for i in node.input)
        left[name] += 1
        large: dict[str, Array] = {}
        for node in steps:
            inputs = [large[i] if i in large else self.value(i) if i else None for i in node.input]
            outputs = evaluate_node(node, inputs, self.opset.get("", 1))
            self._count(node, inputs, outputs)
            left.subtract(node.input)
            for i in node.input:
                if not left[i]:
                    large.pop(i, None)
            for output, value in zip(node.output, outputs, strict=False):
                self._shapes[output] = value.shape
                if value.size <= _KEPT:
                    self._values[output] = value
                elif left[output]:
                    large[output] = value
        return large[name] if name in large else self._values[name]

    def _count(
        self, node: onnx.NodeProto, inputs: Sequence[Array | None], outputs: Sequence[Array]
    ) -> None:
        """A thousand constants that pass one by one must not pass together."""
        size = sum(x.size for x in outputs)
        self._multiplied += products(node, inputs, size)
        if self._multiplied > _MOST_MULTIPLIED:
            raise EvaluationError(
                f"{describe(node)}: the model's constants take more than {_MOST_MULTIPLIED} "
                "multiplications to compute; store them"
            )
        if size > max((x.size for x in inputs if x is not None), default=size):
            self._grown += size
        if self._grown > _MOST_GROWN:
            raise EvaluationError(
                f"{describe(node)}: the model's constants grow to more than {_MOST_GROWN} values "
                "when they are computed; store them, or make them smaller"
            )

    def _steps(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that have to run for a value, in order."""
        steps: list[onnx.NodeProto] = []
        seen: set[str] = set()
        waiting = [(name, False)]
        while waiting:
            tensor, ready = waiting.pop()
            node = self.producer.get(tensor)
            if ready and node is not None:
                steps.append(node)
            elif node is not None and tensor not in self._values and node.output[0] not in seen:
                seen.add(node.output[0])
                waiting.append((tensor, True))
                waiting += [(i, False) for i in reversed(node.input) if i not in self.initializers]
        return steps

    def root(self, name: str) -> str:
        """The initializer behind a chain of Identity nodes, or `name` itself."""
        while name in self.producer and self.producer[name].op_type == "Identity":
            name = self.producer[name].input[0]
        return name
