"""A model as it is walked when two are compared: names, makers, constants, stored tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants, operator_sets
from onnx_esn.graph.evaluate import EvaluationError, attributes
from onnx_esn.graph.inputs import data_inputs
from onnx_esn.graph.node_names import unique_names

# They pass their input on, but for rounding or a scale that a layer before can take over.
TRANSPARENT = (
    *("BatchNormalization", "Cast", "DequantizeLinear", "Dropout", "Identity", "QuantizeLinear"),
)
# Their other inputs are sizes and limits, which exporters compute in the graph or store.
_STEERED = (
    *("Clip", "Expand", "Pad", "ReduceMean", "ReduceSum", "Reshape", "Resize", "Slice", "Split"),
    *("Squeeze", "Tile", "TopK", "Unsqueeze", "Upsample"),
)
_AT_ONCE = 1 << 20  # bytes
COMMUTATIVE = ("Add", "Max", "Mean", "Min", "Mul", "Sum")


@dataclass(frozen=True)
class Stored:
    """A stored tensor: type (`TensorProto.DataType`) and shape."""

    type: int
    shape: tuple[int, ...]


class Place(NamedTuple):
    """What a node is and reads: operator, and (slot, root) of its data."""

    domain: str
    op: str
    read: tuple[tuple[int, str], ...]


class Wiring:
    """Who makes and reads what in the main graph of a model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = model.graph.node
        self.names = unique_names(model)
        self.constants = Constants(model)
        self.opset = operator_sets(model)
        self.inputs = [info.name for info in data_inputs(model)]
        self.outputs = [info.name for info in model.graph.output]
        self.made = {o: i for i, node in enumerate(self.nodes) for o in node.output if o}
        self._roots: dict[str, str] = {}
        self._identities: dict[int, Hashable] = {}
        self._merge_twins()

    def root(self, tensor: str) -> str:
        """The tensor at the start of a chain of nodes that only pass it on."""
        path: list[str] = []
        while tensor not in self._roots:
            node = self.nodes[self.made[tensor]] if tensor in self.made else None
            if node is None or node.op_type not in TRANSPARENT or tensor != node.output[0]:
                self._roots[tensor] = tensor
                break
            path.append(tensor)
            tensor = node.input[0]
        for passed in path:
            self._roots[passed] = self._roots[tensor]
        return self._roots[tensor]

    def _merge_twins(self) -> None:
        """Nodes that compute the same from the same have one root: which is read says nothing."""
        seen: dict[Place, list[int]] = {}
        for index, node in enumerate(self.nodes):
            place = self.place(index)
            if place is None:
                continue
            earlier = seen.setdefault(place, [])
            twin = next((k for k in earlier if self.identity(k) == self.identity(index)), None)
            if twin is None:
                earlier.append(index)
                continue
            for mine, theirs in zip(node.output, self.nodes[twin].output, strict=False):
                if mine and theirs:
                    self._roots[mine] = self.root(theirs)

    def identity(self, index: int) -> Hashable:
        """What a node is besides what it reads: attributes and the values of its constants."""
        if index not in self._identities:
            node = self.nodes[index]
            values = [self.value(name) for name in node.input]
            constants = tuple(None if v is None else plain(v) for v in values)
            attributes = repr(sorted(self.settings(index).items()))
            self._identities[index] = constants, attributes, len(node.output)
        return self._identities[index]

    def place(self, index: int) -> Place | None:
        """Operator and roots of the data a node reads; None for one that reads constants only."""
        node = self.nodes[index]
        read = [
            (slot, self.root(name))
            for slot, name in enumerate(node.input)
            if name and name not in self.constants
        ]
        if not read:
            return None
        if node.op_type in _STEERED and read[0][0] == 0:
            read = read[:1]
        if node.op_type in COMMUTATIVE:
            read = [(0, name) for name in sorted(name for _, name in read)]
        return Place(node.domain, node.op_type, tuple(read))

    def stored(self) -> dict[str, Stored]:
        """Initializers and the tensors of Constant nodes, by name."""
        found = {t.name: Stored(t.data_type, tuple(t.dims)) for t in self.model.graph.initializer}
        for node in self.nodes:
            if node.op_type != "Constant" or not node.output or node.domain not in ("", "ai.onnx"):
                continue
            value = self.value(node.output[0])
            if value is not None:
                kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
                found[node.output[0]] = Stored(kind, value.shape)
        return found

    def value(self, name: str) -> npt.NDArray[Any] | None:
        """Value of a constant tensor; None where it is none, or cannot be computed."""
        if name not in self.constants:
            return None
        try:
            return self.constants.value(name, keep=False)
        except EvaluationError:
            return None

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a constant tensor; None where it is none, or cannot be computed."""
        if name not in self.constants:
            return None
        try:
            return tuple(self.constants.shape(name))
        except EvaluationError:
            return None

    def settings(self, index: int) -> dict[str, Any]:
        """Attributes of a node, those left at the operator's default included."""
        node = self.nodes[index]
        found: dict[str, Any] = {}
        version = self.opset.get("" if node.domain == "ai.onnx" else node.domain)
        if version is not None and onnx.defs.has(node.op_type, version, node.domain):
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)
            for name, attribute in schema.attributes.items():
                default = attribute.default_value
                if default.type != onnx.AttributeProto.UNDEFINED:
                    found[name] = plain(onnx.helper.get_attribute_value(default))
        found.update((name, plain(value)) for name, value in attributes(node).items())
        return found


def plain(value: Any) -> Any:
    """An attribute's value as something that compares and prints."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        value = onnx.numpy_helper.to_array(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)} #{digest(value)}"
    if hasattr(value, "SerializeToString"):
        return f"{type(value).__name__} #{_hashed(value.SerializeToString(deterministic=True))}"
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return value
    return [plain(x) for x in value]


def same_values(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether two arrays hold the same, bit by bit (so that NaN equals NaN)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype == object:
        return bool(np.array_equal(a, b))
    x, y = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (a, b))
    starts = range(0, x.size, _AT_ONCE)
    return all(np.array_equal(x[i : i + _AT_ONCE], y[i : i + _AT_ONCE]) for i in starts)


def digest(array: npt.NDArray[Any]) -> str:
    """A hash of the values."""
    if array.dtype == object:
        return _hashed(repr(array.tolist()).encode())
    return _hashed(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _hashed(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
