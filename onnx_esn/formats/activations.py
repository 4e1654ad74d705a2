"""Quantized activations: QuantizeLinear and DequantizeLinear where integers are to flow.

Between the two lies the integer tensor; a runtime with integer kernels fuses what stands between a
DequantizeLinear and the next QuantizeLinear into one of them, any other computes the same in float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from onnx_esn.formats.activations_grid import ActivationGrid, Kind
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.node_names import node_name
from onnx_esn.graph.stored import add_initializer

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Pair:
    """A tensor to be quantized.

    Attributes:
        tensor: its name; that of what the DequantizeLinear makes, where `readers` is None.
        root: the tensor whose scale and zero point it has.
        readers: (index of the node, input slot) that are to read the integers; None: all of them.
    """

    tensor: str
    root: str
    readers: tuple[tuple[int, int], ...] | None


class QdqWriter:
    """Writes integer weights and QDQ pairs into the model it is given.

    Nodes keep their index until `finish`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._nodes = list(model.graph.node)
        self._names = Names(model.graph)
        for node in self._nodes:
            self._names.reserve(node)
        self._after: dict[int, list[onnx.NodeProto]] = {}
        self._parameters: dict[str, tuple[str, str]] = {}

    def weight(self, index: int, codes: Array, scale: Array, axis: int) -> None:
        """Let a node read its weight from stored integers, with a scale for each filter."""
        base = self._nodes[index].input[1]
        zero = np.zeros(scale.shape, codes.dtype)
        parts = [("_int", codes), ("_scale", scale.astype(np.float32)), ("_zero_point", zero)]
        self._nodes[index].input[1] = self._dequantized(index, base, parts, axis)

    def bias(self, index: int, codes: npt.NDArray[np.int64], scale: Array) -> None:
        """Let a node read its bias from stored 32-bit integers."""
        node = self._nodes[index]
        base = node.input[2] if len(node.input) > 2 and node.input[2] else f"{node.output[0]}_bias"
        while len(node.input) < 3:
            node.input.append("")
        parts = [("_int", codes.astype(np.int32)), ("_scale", scale.astype(np.float32))]
        node.input[2] = self._dequantized(index, base, parts, 0)

    def pairs(self, pairs: Sequence[Pair], grids: Mapping[str, ActivationGrid], kind: Kind) -> None:
        """Put a QuantizeLinear and a DequantizeLinear behind each of the tensors."""
        makers = {name: i for i, node in enumerate(self._nodes) for name in node.output}
        for pair in pairs:
            scale, zero = self._grid(pair.root, grids[pair.root], kind)
            name, index = pair.tensor, makers.get(pair.tensor, -1)
            if pair.readers is None:
                source, result = self._names.fresh(f"{name}_float"), name
                node = self._nodes[index]
                node.name = node_name(node)  # before its output changes: layers are named by it
                node.output[list(node.output).index(name)] = source
            else:
                source, result = name, self._names.fresh(f"{name}_dequantized")
                for reader, slot in pair.readers:
                    self._nodes[reader].input[slot] = result
            after = self._after.setdefault(index, [])
            if kind.narrow and pair.tensor == pair.root:  # what only moves is clipped already
                clipped = self._names.fresh(f"{name}_clipped")
                ends = self._ends(pair.root, grids[pair.root], kind)
                after.append(_node("Clip", [source, *ends], clipped))
                source = clipped
            integers = self._names.fresh(f"{name}_quantized")
            after.extend([
                _node("QuantizeLinear", [source, scale, zero], integers),
                _node("DequantizeLinear", [integers, scale, zero], result, f"{name}_dequantize"),
            ])  # fmt: skip

    def finish(self, gone: Callable[[int], bool] = lambda index: False) -> None:
        """Put the new nodes in their places; those for which `gone` holds are left out."""
        nodes = list(self._after.get(-1, ()))
        for index, node in enumerate(self._nodes):
            if not gone(index):
                nodes.append(node)
            nodes += self._after.get(index, ())
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)
        del self.model.graph.value_info[:]

    def _dequantized(
        self, index: int, base: str, parts: Sequence[tuple[str, Array]], axis: int
    ) -> str:
        """Store the parts, and add the DequantizeLinear that makes a tensor of them."""
        stored = [self._store(f"{base}{suffix}", value) for suffix, value in parts]
        result = self._names.fresh(f"{base}_dequantized")
        node = helper.make_node("DequantizeLinear", stored, [result], result, axis=axis)
        self._after.setdefault(index - 1, []).append(node)
        return result

    def _grid(self, root: str, grid: ActivationGrid, kind: Kind) -> tuple[str, str]:
        if root not in self._parameters:
            scale, zero = grid.arrays(kind)
            self._parameters[root] = (
                self._store(f"{root}_scale", scale),
                self._store(f"{root}_zero_point", zero),
            )
        return self._parameters[root]

    def _ends(self, root: str, grid: ActivationGrid, kind: Kind) -> tuple[str, str]:
        low, high = (np.array(end, np.float32) for end in grid.ends(kind))
        return self._store(f"{root}_low", low), self._store(f"{root}_high", high)

    def _store(self, name: str, value: Array) -> str:
        name = self._names.fresh(name)
        add_initializer(self.model, numpy_helper.from_array(value, name))
        return name


def _node(op: str, inputs: Sequence[str], output: str, name: str = "") -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name or output)
