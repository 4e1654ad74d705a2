"""Make convolution kernels smaller where border rows and columns are zero in all filters.

Without its first t and last b positions along an axis of dilation d, a kernel of size k has size
k − t − b, and meets the same inputs if d·t zeros fewer are put before them and d·b fewer behind:
the output keeps its size, and the outputs are the same sums without the zero terms. That holds for
Conv and, for zeros that are cut off the output, for ConvTranspose.

A cut that needs more zeros than there are would have to skip inputs: `most_cut` does not offer it.
Zeros that a Pad puts before the convolution count; the Pad is then taken into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.readers import readers
from onnx_esn.graph.stored import add_initializer
from onnx_esn.graph.unread import drop_unread, reads
from onnx_esn.graph.zero_padding import ZeroPad, own_pads, zero_pad_before
from onnx_esn.numerics.kernel_positions import Cut

Pads = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Room:
    """How far a layer's kernel can be cut.

    Attributes:
        most: the cut that takes all there is.
        pads: zeros that it puts before and after each axis itself.
        before: the Pad that can be taken into it, or None.
    """

    most: Cut
    pads: Pads
    before: ZeroPad | None


def find_room(
    model: onnx.ModelProto, layer: Layer, constants: Constants, sizes: tuple[Facts, Facts]
) -> Room | str:
    """How far a layer's kernel can be cut, or why it cannot.

    Args:
        model: the model.
        layer: a Conv or ConvTranspose.
        constants: constants of the model.
        sizes: facts at two sizes; what differs between them is not relied on.
    """
    node = model.graph.node[layer.index]
    attrs = attributes(node)
    first, other = (f.shapes.get(node.input[0]) for f in sizes)
    fixed = first if first is not None and other is not None and first[2:] == other[2:] else None
    pads = own_pads(attrs, layer, fixed)
    if isinstance(pads, str):
        return pads

    def known(name: str) -> np.ndarray | None:
        if name in constants:
            return np.asarray(constants.value(name))
        a, b = (f.values.get(name) for f in sizes)
        return a if a is not None and b is not None and np.array_equal(a, b) else None

    before = None
    if attrs.get("auto_pad", b"NOTSET") in (b"", b"NOTSET", b"VALID"):
        before = zero_pad_before(model, layer, known, readers(model))
    dilations = attrs.get("dilations") or [1] * len(layer.kernel)
    zeros = _added(pads, before)
    begin, end = (tuple(z // d for z, d in zip(side, dilations, strict=True)) for side in zeros)
    limits = [k - 1 for k in layer.kernel]
    most = Cut(tuple(map(min, begin, limits)), tuple(map(min, end, limits)))
    if not most:
        return "it has no zero padding: a smaller kernel would have to skip inputs"
    return Room(most, pads, before)


def shrink_kernels(
    model: onnx.ModelProto,
    layers: Mapping[str, Layer],
    cuts: Mapping[str, Cut],
    rooms: Mapping[str, Room],
) -> onnx.ModelProto:
    """A copy of the model with smaller kernels.

    Args:
        model: the model, whose weights are zero where they are cut.
        layers: its layers, by name.
        cuts: by layer; within the room.
        rooms: by layer.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants, before = Constants(model), set(reads(model))
    users = readers(model)
    taken = {t.name for t in copy.graph.initializer} | {i.name for i in copy.graph.input}
    taken |= {name for node in copy.graph.node for name in (*node.input, *node.output)}
    made: dict[tuple[str, Cut], str] = {}
    for name, cut in cuts.items():
        if not cut:
            continue
        layer, node = layers[name], copy.graph.node[layers[name].index]
        if (layer.weight, cut) not in made:
            made[layer.weight, cut] = _store(copy, constants, users, layer, cut, taken)
        node.input[layer.slot] = made[layer.weight, cut]
        _set_attributes(copy, node, layer, cut, rooms[name])
    drop_unread(copy, before)
    return copy


def _store(
    model: onnx.ModelProto,
    constants: Constants,
    users: Mapping[str, list[int]],
    layer: Layer,
    cut: Cut,
    taken: set[str],
) -> str:
    """Store the smaller weight, in the place of the whole one where nobody else reads that."""
    W = constants.value(layer.weight, keep=False)
    kept = (slice(None), slice(None), *cut.slices(layer.kernel))
    small = np.ascontiguousarray(W[kept])
    if layer.weight in constants.initializers and len(users[layer.weight]) == 1:
        at = next(i for i, t in enumerate(model.graph.initializer) if t.name == layer.weight)
        tensor = numpy_helper.from_array(small, layer.weight)
        tensor.doc_string = model.graph.initializer[at].doc_string
        model.graph.initializer[at].CopyFrom(tensor)
        for info in model.graph.input:
            if info.name == layer.weight:  # below IR version 4
                kind = helper.make_tensor_type_proto(tensor.data_type, small.shape)
                info.type.CopyFrom(kind)
        return layer.weight
    name = f"{layer.weight}_shrunk"
    while name in taken:
        name += "_"
    taken.add(name)
    add_initializer(model, numpy_helper.from_array(small, name))
    return name


def _set_attributes(
    model: onnx.ModelProto, node: onnx.NodeProto, layer: Layer, cut: Cut, room: Room
) -> None:
    rank = len(layer.kernel)
    dilations = attributes(node).get("dilations") or [1] * rank
    begin, end = (
        [z - d * c for z, d, c in zip(side, dilations, gone, strict=True)]
        for side, gone in zip(room.pads, (cut.begin, cut.end), strict=True)
    )
    if room.before is not None and min(*begin, *end) < 0:
        wide = _added(room.pads, room.before)
        begin, end = (
            [z - d * c for z, d, c in zip(side, dilations, gone, strict=True)]
            for side, gone in zip(wide, (cut.begin, cut.end), strict=True)
        )
        node.input[0] = room.before.node.input[0]
    for i in reversed(range(len(node.attribute))):
        if node.attribute[i].name in ("auto_pad", "pads", "kernel_shape"):
            del node.attribute[i]
    node.attribute.append(helper.make_attribute("kernel_shape", list(cut.left(layer.kernel))))
    node.attribute.append(helper.make_attribute("pads", [*begin, *end]))


def _added(pads: Pads, before: ZeroPad | None) -> Pads:
    if before is None:
        return pads
    sides = zip(pads, (before.begin, before.end), strict=True)
    begin, end = (tuple(a + b for a, b in zip(x, y, strict=True)) for x, y in sides)
    return begin, end
