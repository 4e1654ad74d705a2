"""Format `fake`: the quantized weights Δ·W_int as floats, in the type the weights had.

The graph stays as it is and any runtime runs it; `inspect` reads the codes back from the values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layer_weight import Block
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.number_formats import EPSILON, round_to, stored_dtype, to_stored
from onnx_esn.graph.readers import readers, reads
from onnx_esn.graph.weights import (
    Floats,
    StoredWeight,
    as_stored,
    constant_tensor,
    path_outputs,
    read_weight,
)
from onnx_esn.numerics.midrise import decode
from onnx_esn.outside import is_outside, put_values

_OPTIONAL_INPUTS = 4  # before this IR version every initializer is an input of the graph too


def write(
    model: onnx.ModelProto, layer: Layer, codes: npt.ArrayLike, step: npt.ArrayLike
) -> onnx.ModelProto:
    """Return a copy of the model in which the layer's weights are Δ·W_int.

    Whatever else reads the same tensor keeps the old values: the layer then gets a tensor of its
    own.

    Args:
        model: the model.
        layer: one of its layers, whose weight is not `locked`.
        codes: W_int (M, K), in the order of `Layer.as_filters`.
        step: Δ (M,).

    Raises:
        ValueError: the weight is computed in the graph or not stored as floats.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = Constants(copy)
    write_into(copy, constants, [layer], read_weight(layer, constants), codes, step)
    return copy


def write_into(
    model: onnx.ModelProto,
    constants: Constants,
    layers: Sequence[Layer],
    weight: StoredWeight,
    codes: npt.ArrayLike,
    step: npt.ArrayLike,
) -> bool:
    """Write Δ·W_int to the one weight that all `layers` share, in place; True if it changed.

    The values that `constants` keeps of the weight are those before the change.
    """
    new, delta = np.asarray(codes, dtype=np.float64), np.asarray(step, dtype=np.float64)

    def values(block: Block) -> Floats:
        return quantized_block(weight, block, new[block.rows], delta[block.rows])

    return write_blocks(model, constants, layers, weight, values)


def write_values(
    model: onnx.ModelProto,
    constants: Constants,
    layers: Sequence[Layer],
    weight: StoredWeight,
    values: Floats,
) -> bool:
    """Write values (M, K), rounded to the stored type by the caller, as `write_into` does."""
    return write_blocks(model, constants, layers, weight, lambda block: values[block.rows])


def write_blocks(
    model: onnx.ModelProto,
    constants: Constants,
    layers: Sequence[Layer],
    weight: StoredWeight,
    values: Callable[[Block], Floats],
) -> bool:
    """Write values, rounded to the stored type, made for a few filters at a time, in place.

    Args:
        model, constants, layers, weight: as for `write_into`.
        values: (m, K) for a block of the weight; asked for once for each, in order.

    Returns:
        Whether any differs from what was there.
    """
    if weight.locked:
        raise ValueError(f"{layers[0].name}: {weight.locked}")
    tensor = _own_tensor(model, constants, layers, weight)
    kind = weight.read_type if tensor is None else weight.type
    rows, modified = np.empty(weight.shape, stored_dtype(kind)), False
    for block in weight.blocks():
        new = values(block)
        modified = modified or not np.array_equal(new, block.W)
        rows[block.rows] = to_stored(new, kind)
    if not modified:
        return False
    if tensor is None:
        _add_tensor(model, constants, layers, weight, rows)
    else:
        put_values(tensor, as_stored(layers[0], constants, rows))
    return True


def quantized_values(weight: StoredWeight, codes: npt.ArrayLike, step: npt.ArrayLike) -> Floats:
    """Return Δ·W_int (M, K) rounded to the type of the weight.

    A filter that holds these codes at this step already, up to the last digit, stays as it is:
    writing what was read changes nothing.
    """
    new, delta = np.asarray(codes, dtype=np.float64), np.asarray(step, dtype=np.float64)
    values = np.empty(weight.shape)
    for block in weight.blocks():
        rows = block.rows
        values[rows] = quantized_block(weight, block, new[rows], delta[rows])
    return values


def quantized_block(weight: StoredWeight, block: Block, codes: Floats, step: Floats) -> Floats:
    """The same (m, K) for a few filters of the weight: codes (m, K), step (m,)."""
    values = round_to(decode(codes, step), weight.type)
    if weight.step is not None:
        now = weight.step[block.rows]
        near = np.abs(step - now) <= EPSILON[weight.type] * now
        there = near & (codes == block.codes).all(axis=1)
        values[there] = block.W[there]
    return values


@dataclass(frozen=True)
class _Wiring:
    """Who makes and who reads a tensor, found once for a model of which many layers are written.

    Meanwhile nodes may come to read others instead, never more of these.
    """

    nodes: int
    maker: dict[str, int]
    users: dict[str, list[int]]


_WIRINGS: WeakKeyDictionary[Constants, _Wiring] = WeakKeyDictionary()


def _wiring(model: onnx.ModelProto, constants: Constants) -> _Wiring:
    known, nodes = _WIRINGS.get(constants), model.graph.node
    if known is None or known.nodes != len(nodes):
        maker = {name: i for i, node in enumerate(nodes) for name in node.output}
        _WIRINGS[constants] = known = _Wiring(len(nodes), maker, readers(model))
    return known


def _own_tensor(
    model: onnx.ModelProto, constants: Constants, layers: Sequence[Layer], weight: StoredWeight
) -> onnx.TensorProto | None:
    """The stored tensor, or None where others than these layers read it."""
    names = {name for layer in layers for name in path_outputs(layer, constants)}
    wiring = _wiring(model, constants)
    allowed = {layer.index for layer in layers}
    allowed |= {wiring.maker[name] for name in names if name in wiring.maker}
    for name in names:
        others = set(wiring.users.get(name, ())) - allowed
        if any(i < 0 or reads(model.graph.node[i], name) for i in others):
            return None
    if weight.tensor in constants.initializers:
        stored: onnx.TensorProto = constants.initializers[weight.tensor]
        return stored
    return constant_tensor(constants.producer[weight.tensor])


def _add_tensor(
    model: onnx.ModelProto,
    constants: Constants,
    layers: Sequence[Layer],
    weight: StoredWeight,
    rows: npt.NDArray[Any],
) -> None:
    """Give the layers a tensor of their own, of filters (M, K)."""
    taken = {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input}
    taken |= {name for node in model.graph.node for name in (*node.input, *node.output)}
    name = f"{weight.tensor}_quantized"
    while name in taken:
        name += "_"
    shape = layers[0].weight_shape
    source = constants.initializers.get(weight.tensor)
    added = model.graph.initializer.add(name=name, data_type=weight.read_type, dims=shape)
    values = layers[0].from_filters(rows)
    put_values(added, values, outside=source is not None and is_outside(source))
    if model.ir_version < _OPTIONAL_INPUTS:
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, weight.read_type, shape))
    for layer in layers:
        model.graph.node[layer.index].input[layer.slot] = name
