"""Bring streams into another basis: the layers at both ends, biases, what is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from onnx_esn.formats.weight_writing import WeightWriter
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.number_formats import round_to, to_bytes
from onnx_esn.graph.rewrite.rotated import record_rotated
from onnx_esn.graph.stored import add_initializer
from onnx_esn.graph.unread import drop_unread, reads
from onnx_esn.graph.weights import StoredWeight, read_weight
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.base import copied
from onnx_esn.passes.rotating.streams import Maker, Stream


@dataclass(frozen=True)
class Basis:
    """M and M⁻¹ (c, c) of one stream."""

    M: Floats
    inverse: Floats


def folded(
    maker: Maker, weight: StoredWeight, constants: Constants
) -> tuple[Floats, Floats | None]:
    """Weights (M, K) and bias (M,) of a layer with the BatchNormalization behind it in them."""
    layer, norm, W = maker.layer, maker.norm, weight.W
    bias: Floats | None = None
    if layer.bias:
        value = constants.value(layer.bias).astype(np.float64).reshape(-1)
        bias = np.broadcast_to(value, (layer.filters,))
    if norm is None:
        return W, bias
    shift = norm.beta - norm.gain * norm.mean
    return norm.gain[:, None] * W, shift if bias is None else norm.gain * bias + shift


def by_channel(layer: Layer, W: Floats) -> Floats:
    """Filters (M, K) as (M, c, taps)."""
    return W.reshape(layer.filters, layer.channels_in, -1)


def in_new_bases(
    model: onnx.ModelProto,
    constants: Constants,
    streams: Sequence[Stream],
    bases: Sequence[Basis],
) -> onnx.ModelProto:
    """A copy of the model with every stream in its basis; the streams' tensors get new names.

    Who looks for a tensor by name must not take the new one for the old.
    """
    result = copied(model)
    before = set(reads(result))
    names = Names(result.graph)
    for node in result.graph.node:
        names.reserve(node)
    made = {m.layer.index: (m, b) for s, b in zip(streams, bases, strict=True) for m in s.makers}
    read = {x.index: b for s, b in zip(streams, bases, strict=True) for x in s.readers}
    layers = {x.index: x for s in streams for x in (*(m.layer for m in s.makers), *s.readers)}
    writer = WeightWriter(result, Constants(result))
    biases: dict[int, Floats] = {}
    for index, layer in sorted(layers.items()):
        maker, basis = made.get(index, (Maker(layer, None, None), None))
        weight = read_weight(layer, constants)
        W, bias = folded(maker, weight, constants)
        if index in read:
            taps = by_channel(layer, W).transpose(0, 2, 1) @ read[index].inverse
            W = np.ascontiguousarray(taps.transpose(0, 2, 1)).reshape(W.shape)
        if basis is not None:
            W = basis.M @ W
            if bias is not None:
                biases[index] = basis.M @ bias
        writer.write([layer], weight, round_to(W, weight.type))
    for index, bias in biases.items():
        _set_bias(result, names, layers[index], bias, constants)
    for stream, basis in zip(streams, bases, strict=True):
        for index, slot, axis in stream.added:
            _set_added(result, names, index, slot, axis, basis, constants)
    _join_norms(result, [m for m, _ in made.values()])
    _rename(result, {t: names.fresh(f"{t}_rotated") for s in streams for t in s.tensors})
    drop_unread(result, before)
    record_rotated(
        result,
        [m.layer.name for s in streams for m in s.makers],
        [x.name for s in streams for x in s.readers],
    )
    return result


def _set_bias(
    model: onnx.ModelProto, names: Names, layer: Layer, bias: Floats, constants: Constants
) -> None:
    node = model.graph.node[layer.index]
    name = names.fresh(f"{layer.bias or layer.output}_rotated")
    add_initializer(model, _tensor(name, constants.value(layer.weight).dtype, bias))
    while len(node.input) < 3:
        node.input.append("")
    node.input[2] = name


def _set_added(
    model: onnx.ModelProto,
    names: Names,
    index: int,
    slot: int,
    axis: int,
    basis: Basis,
    constants: Constants,
) -> None:
    node = model.graph.node[index]
    old = constants.value(node.input[slot])
    value = np.moveaxis(np.tensordot(basis.M, old.astype(np.float64), (1, axis)), 0, axis)
    name = names.fresh(f"{node.input[slot]}_rotated")
    add_initializer(model, _tensor(name, old.dtype, value))
    node.input[slot] = name


def _tensor(name: str, dtype: np.dtype[np.generic], value: Floats) -> TensorProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return TensorProto(name=name, data_type=kind, dims=value.shape, raw_data=to_bytes(value, kind))


def _join_norms(model: onnx.ModelProto, makers: Sequence[Maker]) -> None:
    """Remove what went into the layers before it; they make its output."""
    nodes = model.graph.node
    gone = {m.norm_index: m.layer.index for m in makers if m.norm_index is not None}
    for norm, layer in gone.items():
        nodes[layer].output[0] = nodes[norm].output[0]
    for norm in sorted(gone, reverse=True):
        del nodes[norm]


def _rename(model: onnx.ModelProto, new: Mapping[str, str]) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for slot, name in enumerate(names):
                if name in new:
                    names[slot] = new[name]
    for i in reversed(range(len(model.graph.value_info))):
        if model.graph.value_info[i].name in new:
            del model.graph.value_info[i]
