"""Where activations become integers: between the nodes that have an integer kernel.

A node is *integer* where onnxruntime can run it on integers and it pays:

- layers with integer weights, always;
- Add, Mul, Concat, pooling and the like, where what they read comes from an integer node and what
  they make goes to one: a sum that leaves the model is better formed in float;
- nodes that only move values, under the same rule; they keep scale and zero point.

A tensor that an integer node reads or makes is quantized. Between a node and the Relu behind it is
none: the integers that the Relu would clip cannot even be written where the range begins at zero.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.readers import read_places

# What onnxruntime's CPU provider has an integer kernel for, besides layers.
_ARITHMETIC = (
    *("Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"),
)
_MOVES = (
    *("DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape"),
    *("Resize", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)
_OPEN_ENDED = ("Gemm", "MatMul")  # their kernels may give floats


@dataclass(frozen=True)
class Placement:
    """Which tensors are quantized.

    Attributes:
        tensors: by tensor in graph order, the one whose scale and zero point it has.
        made: those that an integer node makes: whoever reads one reads integers.
        nodes: indices of the integer nodes.
    """

    tensors: dict[str, str]
    made: frozenset[str]
    nodes: frozenset[int]

    @property
    def roots(self) -> list[str]:
        """The tensors that have a scale of their own."""
        return list(dict.fromkeys(self.tensors.values()))


def place(
    model: onnx.ModelProto, constants: Constants, facts: Facts, layers: Collection[str]
) -> Placement:
    """Decide which tensors of a model are quantized.

    Args:
        model: the model.
        constants: its constants.
        facts: types and ranks of its tensors, at any size.
        layers: outputs of the layers with integer weights.
    """
    return _Placer(model, constants, facts, layers).run()


def data_slots(node: onnx.NodeProto) -> list[int]:
    """The input slots of an integer node that activations enter by."""
    if node.op_type in ("Add", "Mul", "Concat"):
        return list(range(len(node.input)))
    return [0]


class _Placer:
    def __init__(
        self, model: onnx.ModelProto, constants: Constants, facts: Facts, layers: Collection[str]
    ) -> None:
        self.nodes = model.graph.node
        self.constants, self.facts = constants, facts
        self.places = read_places(model)
        self.layers = {i for i, n in enumerate(self.nodes) if n.output and n.output[0] in layers}
        self.integer = self.layers | {i for i, n in enumerate(self.nodes) if self._possible(n)}
        self.results = {i: self._results(i) for i in self.integer}
        self.maker = {name: i for i in self.integer for name in self.results[i]}

    def run(self) -> Placement:
        changed = True
        while changed:
            lost = {i for i in self.integer - self.layers if not self._pays(i)}
            self.integer -= lost
            changed = bool(lost)
        roots: dict[str, str] = {}
        made: set[str] = set()
        for i in sorted(self.integer):
            node = self.nodes[i]
            for slot in data_slots(node):
                roots.setdefault(node.input[slot], node.input[slot])
            for name in self.results[i]:
                if self._is_written(i, name):
                    moved = i not in self.layers and node.op_type in _MOVES
                    roots[name] = roots[node.input[0]] if moved else name
                    made.add(name)
        return Placement(roots, frozenset(made), frozenset(self.integer))

    def _possible(self, node: onnx.NodeProto) -> bool:
        """Whether an integer kernel could take the node, whatever is around it."""
        if node.domain not in ("", "ai.onnx") or node.op_type not in (*_ARITHMETIC, *_MOVES):
            return False
        read = [node.input[slot] for slot in data_slots(node)]
        if any(self.facts.types.get(x) != TensorProto.FLOAT or x in self.constants for x in read):
            return False
        attrs = attributes(node)
        if node.op_type in ("AveragePool", "GlobalAveragePool", "MaxPool"):
            plain = all(d == 1 for d in attrs.get("dilations", ())) and not any(node.output[1:])
            return plain and len(self.facts.shapes.get(read[0], ())) == 4
        if node.op_type == "Resize":
            return bool(attrs.get("mode", b"nearest") == b"nearest")
        return node.op_type != "Dropout" or not any(node.output[1:])

    def _results(self, i: int) -> list[str]:
        """What a node makes, behind the Relu that it takes along."""
        node = self.nodes[i]
        names = [name for name in node.output if name]
        if i not in self.layers and node.op_type in _MOVES:
            return names
        (name,) = names[:1]
        while len(self.places[name]) == 1:
            index, slot = self.places[name][0]
            if index < 0 or slot != 0 or not self._rectifies(self.nodes[index]):
                break
            name = self.nodes[index].output[0]
        return [name]

    def _rectifies(self, node: onnx.NodeProto) -> bool:
        """Whether the node is a Relu, a Clip from 0 on, or nothing at all."""
        if node.op_type in ("Relu", "Identity"):
            return True
        if node.op_type != "Clip":
            return False
        low = attributes(node).get("min")
        if len(node.input) > 1 and node.input[1]:
            if node.input[1] not in self.constants:
                return False
            low = float(self.constants.value(node.input[1]).reshape(-1)[0])
        return low == 0

    def _pays(self, i: int) -> bool:
        """Whether integers come in, and are asked for."""
        node = self.nodes[i]
        read = [node.input[slot] for slot in data_slots(node)]
        return any(
            self.maker.get(x, -1) in self.integer and self._is_written(self.maker[x], x)
            for x in read
        ) and any(self._is_read(name) for name in self.results[i])

    def _is_written(self, i: int, name: str) -> bool:
        """Whether an integer node gives integers: a matrix product does only if asked for them."""
        node = self.nodes[i]
        if i not in self.layers or node.op_type not in _OPEN_ENDED or self._is_read(name):
            return True
        # Left to itself, onnxruntime would first fuse what follows into a float Gemm.
        readers = [self.nodes[index].op_type for index, _ in self.places[name] if index >= 0]
        followed = node.op_type == "Gemm" and name != node.output[0]
        return followed or (node.op_type == "MatMul" and readers == ["Add"])

    def _is_read(self, name: str) -> bool:
        """Whether an integer node reads the tensor as data."""
        return any(
            index in self.integer and slot in data_slots(self.nodes[index])
            for index, slot in self.places[name]
        )
