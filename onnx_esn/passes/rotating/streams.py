"""Linear tensors of a model that belong together, with the layers at either end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.norms.batchnorm import BatchNorm, batchnorm_after
from onnx_esn.graph.readers import read_places
from onnx_esn.graph.two_sizes import two_sizes
from onnx_esn.graph.weights import read_weight
from onnx_esn.passes.equalizing.scalable import refused_weight
from onnx_esn.passes.rotating.linear_tensors import CHANNELS, Graph, Join, join

# Where rounding the weights once more does not show.
_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE)
_MOST = 1 << 24  # weights of one layer


@dataclass(frozen=True)
class Maker:
    """A layer whose outputs, behind a BatchNormalization if there is one, are linear tensors."""

    layer: Layer
    norm: BatchNorm | None
    norm_index: int | None


@dataclass(frozen=True)
class Stream:
    """Tensors in one basis.

    Attributes:
        width: their channels, c.
        tensors: their names.
        makers: the layers that make them.
        readers: the layers that alone read them.
        added: (index of the node, input slot, axis of channels) of constants that are added.
    """

    width: int
    tensors: tuple[str, ...]
    makers: tuple[Maker, ...]
    readers: tuple[Layer, ...]
    added: tuple[tuple[int, int, int], ...]


def find_streams(
    model: onnx.ModelProto,
    constants: Constants,
    *,
    kept: Collection[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> list[Stream]:
    """The streams of a model in standard form, in the order of the graph.

    A stream is made by layers, passes what is linear in it, and is read by layers alone: no
    activation, no output of the model, no body of If or Loop.

    Args:
        model: the model.
        constants: its constants.
        kept: names of layers whose weights are to stay.
        shapes: input shapes for dynamic axes other than the batch.
    """
    return _Finder(model, constants, set(kept), shapes).streams()


class _Finder:
    def __init__(
        self,
        model: onnx.ModelProto,
        constants: Constants,
        kept: set[str],
        shapes: Mapping[str, Sequence[int]] | None,
    ) -> None:
        self.model, self.constants = model, constants
        self.graph = Graph(constants, two_sizes(model, constants, shapes))
        self.places = read_places(model)
        self.users = users = {k: [i for i, _ in found] for k, found in self.places.items()}
        self.layers: dict[int, Layer] = {}
        self.makers: dict[str, Maker] = {}
        for layer in find_layers(model, constants, self.graph.facts[0]):
            node = model.graph.node[layer.index]
            if layer.name in kept or not _mixes(layer, node, self.graph):
                continue
            self.layers[layer.index] = layer
            if layer.bias and layer.bias not in constants:
                continue
            norm = batchnorm_after(model, users, constants, layer)
            if norm is not None and layer.kernel:
                index = users[layer.output][0]
                self.makers[model.graph.node[index].output[0]] = Maker(layer, norm, index)
            else:
                self.makers[layer.output] = Maker(layer, None, None)
        self.joins = {i: j for i, n in enumerate(model.graph.node) if (j := join(self.graph, n))}
        self.made = {name: i for i, n in enumerate(model.graph.node) for name in n.output}

    def streams(self) -> list[Stream]:
        """Those that are linear from end to end."""
        found, seen = [], set()
        for tensor in self.makers:
            if tensor not in seen:
                tensors = self._together(tensor)
                seen |= set(tensors)
                stream = self._stream(tensors)
                if stream is not None:
                    found.append(stream)
        return found

    def _together(self, start: str) -> list[str]:
        """All tensors that joins connect with this one, in the order of the graph."""
        found, todo = {start}, [start]
        while todo:
            name = todo.pop()
            near = [i for i, _ in self.places.get(name, ())]
            near += [self.made[name]] if name in self.made else []
            for i in near:
                for other in self.joins[i].tensors if i in self.joins else ():
                    if other not in found:
                        found.add(other)
                        todo.append(other)
        return sorted(found, key=lambda name: self.made.get(name, -1))

    def _stream(self, tensors: Sequence[str]) -> Stream | None:
        makers: list[Maker] = []
        readers: dict[int, Layer] = {}
        added: list[tuple[int, int, int]] = []
        types, width = self.graph.facts[0].types, 0
        for name in tensors:
            if name not in self.made or types.get(name) not in _TYPES:
                return None  # an input of the model, or a type that would show
            width = self.graph.shape(name)[CHANNELS]
            if name in self.makers:
                makers.append(self.makers[name])
            elif self.made[name] in self.joins:
                node = self.made[name]
                added += [(node, *place) for place in self.joins[node].added]
            else:
                return None
            for index, slot in self.places.get(name, ()):
                if self._passes(index, name):
                    continue
                layer = self.layers.get(index)
                if layer is None or slot != 1 - layer.slot:
                    return None
                readers[index] = layer
        layers = [*(maker.layer for maker in makers), *readers.values()]
        if not readers or any(self._stays(layer) for layer in layers):
            return None
        return Stream(width, tuple(tensors), tuple(makers), tuple(readers.values()), tuple(added))

    def _stays(self, layer: Layer) -> bool:
        """Whether its weights cannot change, or rounding them would show."""
        weight = read_weight(layer, self.constants)
        refused = refused_weight(self.model, self.constants, self.users, layer, weight)
        return bool(refused) or weight.type not in _TYPES

    def _passes(self, index: int, name: str) -> bool:
        found: Join | None = self.joins.get(index)
        return found is not None and name in found.tensors


def _mixes(layer: Layer, node: onnx.NodeProto, graph: Graph) -> bool:
    """Whether every filter reads all channels, on axis 1, and makes one of axis 1."""
    if layer.groups != 1 or layer.parameters > _MOST:
        return False
    if layer.op in ("Conv", "ConvTranspose"):
        return len(graph.shape(layer.output)) > CHANNELS
    # (N, c), and a constant on the right.
    transposed = bool(attributes(node).get("transA", 0))
    ranks = {len(graph.shape(name)) for name in (node.input[0], layer.output)}
    return layer.op in ("Gemm", "MatMul") and layer.slot == 1 and not transposed and ranks == {2}
