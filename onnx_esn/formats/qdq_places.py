"""Which stored weights can be written as integers, and how their filters lie in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.errors import InputError
from onnx_esn.formats.integer_weights import (
    MOST_ULPS,
    IntegerWeight,
    as_integers,
    shifted_integers,
)
from onnx_esn.formats.qdq_types import SUFFIXES, Place
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.layers import Layer, find_layers
from onnx_esn.graph.readers import readers
from onnx_esn.graph.shapes import guessed_facts
from onnx_esn.graph.weights import StoredWeight, as_stored, path_outputs, read_weight

Indices = npt.NDArray[np.int64]

_CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Candidate:
    """One stored weight.

    Attributes:
        layers: that read it, in the graph's order.
        type: float or other type it is stored in …
        type_name: … and the name of that.
        bytes: that it takes as it is stored.
        place: the weight as integers, or None where it stays as it is …
        reason: … and why it does.
        moved: number of filters whose weights no step gives exactly: they move a little.
    """

    layers: tuple[Layer, ...]
    type: int
    type_name: str
    bytes: int
    place: Place | None
    reason: str = ""
    moved: int = 0


def find_candidates(model: onnx.ModelProto, names: Names) -> list[Candidate]:
    """The stored weights of all layers, in the order of their first layer."""
    constants = Constants(model)
    users = readers(model)
    groups: dict[str, list[Layer]] = defaultdict(list)
    for layer in find_layers(model, constants, _facts(model, constants)):
        groups[path_outputs(layer, constants)[0]].append(layer)
    found = []
    for tensor, layers in groups.items():  # one weight at a time: as read it is four times as large
        ordered, weight = _on_a_grid(layers, constants)
        plain = _plain(model, users, tensor)
        found.append(_candidate(ordered, weight, constants, names, plain))
    return found


def _on_a_grid(
    layers: Sequence[Layer], constants: Constants
) -> tuple[Sequence[Layer], StoredWeight]:
    """The layers, first of them the one that reads the weight as filters on a grid, if any does."""
    for i, layer in enumerate(layers):
        weight = read_weight(layer, constants)
        if weight.step is not None or weight.shifted is not None or weight.locked:
            return [layer, *layers[:i], *layers[i + 1 :]], weight
    return layers, weight


def _facts(model: onnx.ModelProto, constants: Constants) -> Facts:
    try:
        return guessed_facts(model, constants, batch=2)
    except InputError:  # an input without a shape: weights are found without, but for Einsum's
        return Facts(sizes={})


def _candidate(
    layers: Sequence[Layer],
    weight: StoredWeight,
    constants: Constants,
    names: Names,
    plain: bool,
) -> Candidate:
    def stays(reason: str) -> Candidate:
        return Candidate(tuple(layers), weight.type, weight.type_name, size, None, reason)

    size = -(-layers[0].parameters * weight.width // 8)
    reason = _why_not(weight)
    if reason:
        return stays(reason)
    integers = as_integers(weight) if weight.shifted is None else shifted_integers(weight)
    if integers.ulps > MOST_ULPS:
        return stays(f"no step gives its weights to within {MOST_ULPS:g} unit in the last place")
    return Candidate(
        tuple(layers),
        weight.type,
        weight.type_name,
        size,
        _place(layers[0], weight, integers, constants, names, plain),
        moved=integers.inexact,
    )


def _plain(model: onnx.ModelProto, users: Mapping[str, Sequence[int]], tensor: str) -> bool:
    """Whether convolutions alone read a tensor, and directly."""
    found = users.get(tensor, ())
    return all(i >= 0 and model.graph.node[i].op_type in _CONVOLUTIONS for i in found)


def _why_not(weight: StoredWeight) -> str:
    if weight.locked:
        return weight.locked
    if weight.step is not None or weight.shifted is not None:
        return ""
    if not weight.values.any():
        return "its weights are all 0"
    return "its weights lie on no grid: quantize it first"


def _place(
    layer: Layer,
    weight: StoredWeight,
    integers: IntegerWeight,
    constants: Constants,
    names: Names,
    plain: bool,
) -> Place:
    if path_outputs(layer, constants) == [layer.weight]:
        n = np.asarray(layer.from_filters(integers.n), integers.n.dtype)
        owner = _owners(layer)
    else:
        n = as_stored(layer, constants, integers.n)
        number = np.arange(layer.filters, dtype=np.int64)[:, None]
        owner = as_stored(layer, constants, np.broadcast_to(number, integers.n.shape))
    view, index = _fewest_axes(owner, n.shape, layer.groups)
    stem = weight.tensor
    while any(f"{stem}_{suffix}" in names.used for suffix in SUFFIXES):
        stem += "_"
    names.used.update(f"{stem}_{suffix}" for suffix in SUFFIXES)
    scale = integers.scale[index]
    offset = None if weight.shifted is None else (weight.shifted.offset + 0.5)[index]
    return Place(weight.tensor, stem, weight.type, n, integers.half, plain, view, scale, offset)


def _owners(layer: Layer) -> Indices:
    """The filter of each weight, in a shape that broadcasts to the weight's own."""
    rest = len(layer.weight_shape) - 2
    if layer.op == "ConvTranspose":
        channels, m = layer.weight_shape[:2]
        first = np.arange(layer.groups).repeat(channels // layer.groups) * m
        return (first[:, None] + np.arange(m)).reshape(channels, m, *[1] * rest)
    sizes = [1] * len(layer.weight_shape)
    sizes[layer.filter_axis] = layer.filters
    return np.arange(layer.filters).reshape(sizes)


def _fewest_axes(
    owner: Indices, shape: tuple[int, ...], groups: int
) -> tuple[tuple[int, ...], Indices]:
    """A shape of the weight, and the filters as broadcast to it from as few numbers as possible.

    Filters of a grouped ConvTranspose lie along two axes, of which the first has the input channels
    of a group beside the groups: there the first axis is split.
    """
    found = [(shape, _squeezed(owner))]
    if groups > 1 and owner.shape[0] == shape[0] > groups and shape[0] % groups == 0:
        split = (groups, shape[0] // groups)
        view = (*split, *shape[1:])
        found.append((view, _squeezed(owner.reshape(*split, *owner.shape[1:]))))
    return min(found, key=lambda entry: entry[1].size)


def _squeezed(owner: Indices) -> Indices:
    """The array with a size of 1 along each axis on which it is constant."""
    for axis in range(owner.ndim):
        first = owner.take([0], axis)
        if (owner == first).all():
            owner = first
    return owner
