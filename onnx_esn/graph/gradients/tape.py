"""Where the nodes of a backward graph are written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from onnx_esn.graph.facts import Facts
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.inputs import Shape

Array = npt.NDArray[Any]
_FAR = 2**31 - 1  # beyond every end


class Tape:
    """Appends nodes to a graph; every method returns the name of the tensor it makes.

    Attributes:
        facts: shapes, types and small values of the forward tensors.
        dtype: of the constants that are stored.
    """

    def __init__(self, graph: onnx.GraphProto, facts: Facts, dtype: npt.DTypeLike) -> None:
        self.graph, self.facts = graph, facts
        self.dtype = np.dtype(dtype)
        self._names = Names(graph)
        self._constants: dict[tuple[str, Shape, bytes], str] = {}

    def shape(self, name: str) -> Shape:
        """Shape of a forward tensor."""
        return self.facts.shapes[name]

    def emit(self, op: str, *inputs: str, **attrs: Any) -> str:
        """One node with one output."""
        return self.emit_many(op, inputs, 1, **attrs)[0]

    def emit_many(self, op: str, inputs: Sequence[str], count: int, **attrs: Any) -> list[str]:
        """One node with several outputs."""
        made = [self._names.fresh(f"backward.{op}") for _ in range(count)]
        self.graph.node.append(helper.make_node(op, list(inputs), made, made[0], **attrs))
        return made

    def constant(self, value: npt.ArrayLike) -> str:
        """A stored tensor; equal ones are stored once."""
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        elif array.dtype.kind == "i":
            array = array.astype(np.int64)
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in self._constants:
            name = self._names.fresh("backward.constant")
            self.graph.initializer.append(numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def store(self, value: Array) -> str:
        """A stored tensor that is not looked for among the others, such as a weight."""
        name = self._names.fresh("backward.stored")
        self.graph.initializer.append(numpy_helper.from_array(value.astype(self.dtype), name))
        return name

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Other axes, same values."""
        return self.emit("Reshape", x, self.constant(np.asarray(shape, np.int64)))

    def transpose(self, x: str, order: Sequence[int]) -> str:
        """Permute axes; nothing where they stay."""
        if list(order) == sorted(order):
            return x
        return self.emit("Transpose", x, perm=list(order))

    def reduce_sum(self, x: str, axes: Sequence[int], *, keepdims: bool = False) -> str:
        """Sum over axes; nothing where there are none."""
        if not axes:
            return x
        at = self.constant(np.asarray(axes, np.int64))
        return self.emit("ReduceSum", x, at, keepdims=int(keepdims))

    def expand(self, x: str, shape: Sequence[int]) -> str:
        """Repeat along axes of size 1."""
        return self.emit("Expand", x, self.constant(np.asarray(shape, np.int64)))

    def slice(
        self, x: str, axes: Sequence[int], starts: Sequence[int], ends: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> str:  # fmt: skip
        """Part of a tensor."""
        inputs = [x, *(self.constant(np.asarray(v, np.int64)) for v in (starts, ends, axes))]
        if steps is not None and any(s != 1 for s in steps):
            inputs.append(self.constant(np.asarray(steps, np.int64)))
        return self.emit("Slice", *inputs)

    def pad(self, x: str, before: Sequence[int], after: Sequence[int]) -> str:
        """Zeros around a tensor (rank entries each); negative counts crop."""
        cropped = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a < 0 or b < 0]
        if cropped:
            ends = [min(after[i], 0) or _FAR for i in cropped]
            x = self.slice(x, cropped, [max(-before[i], 0) for i in cropped], ends)
        pads = [max(n, 0) for n in (*before, *after)]
        if not any(pads):
            return x
        return self.emit("Pad", x, self.constant(np.asarray(pads, np.int64)))

    def where(self, condition: str, x: str) -> str:
        """x where the condition holds, else 0."""
        factor = self.emit("Cast", condition, to=helper.np_dtype_to_tensor_dtype(self.dtype))
        return self.emit("Mul", x, factor)  # in onnxruntime faster than Where

    def add(self, terms: Sequence[str]) -> str:
        """Sum of tensors of one shape."""
        total, *rest = terms
        for term in rest:
            total = self.emit("Add", total, term)
        return total

    def unbroadcast(self, x: str, shape: Shape, wanted: Shape) -> str:
        """Sum x, of this shape, over the axes along which `wanted` was repeated to give it."""
        if shape == wanted:
            return x
        lead = len(shape) - len(wanted)
        repeated = [
            i for i in range(len(shape)) if i < lead or (wanted[i - lead] == 1 and shape[i] != 1)
        ]
        return self.reshape(self.reduce_sum(x, repeated), wanted)
