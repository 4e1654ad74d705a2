"""Format `fake`: the quantized weights Δ·W_int as floats, in the type the weights had.

The graph stays as it is and any runtime runs it; `inspect` reads the codes back from the values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.number_formats import EPSILON, round_to, to_bytes
from onnx_esn.graph.readers import readers
from onnx_esn.graph.weights import (
    Floats,
    StoredWeight,
    as_stored,
    constant_tensor,
    path_outputs,
    read_weight,
)
from onnx_esn.numerics.midrise import decode
from onnx_esn.outside import forget_place

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
    return write_values(model, constants, layers, weight, quantized_values(weight, codes, step))


def write_values(
    model: onnx.ModelProto,
    constants: Constants,
    layers: Sequence[Layer],
    weight: StoredWeight,
    values: Floats,
) -> bool:
    """Write values (M, K), rounded to the stored type by the caller, as `write_into` does."""
    if weight.locked:
        raise ValueError(f"{layers[0].name}: {weight.locked}")
    if np.array_equal(values, weight.W):
        return False
    tensor = _own_tensor(model, constants, layers, weight)
    if tensor is None:
        _add_tensor(model, constants, layers, weight, values)
    else:
        _overwrite(tensor, to_bytes(as_stored(layers[0], constants, values), weight.type))
    return True


def quantized_values(weight: StoredWeight, codes: npt.ArrayLike, step: npt.ArrayLike) -> Floats:
    """Return Δ·W_int (M, K) rounded to the type of the weight.

    A filter that holds these codes at this step already, up to the last digit, stays as it is:
    writing what was read changes nothing.
    """
    new, delta = np.asarray(codes, dtype=np.float64), np.asarray(step, dtype=np.float64)
    values = round_to(decode(new, delta), weight.type)
    if weight.step is not None:
        near = np.abs(delta - weight.step) <= EPSILON[weight.type] * weight.step
        there = near & (new == weight.codes).all(axis=1)
        values[there] = weight.W[there]
    return values


def _own_tensor(
    model: onnx.ModelProto, constants: Constants, layers: Sequence[Layer], weight: StoredWeight
) -> onnx.TensorProto | None:
    """The stored tensor, or None where others than these layers read it."""
    names = {name for layer in layers for name in path_outputs(layer, constants)}
    allowed = {layer.index for layer in layers}
    allowed |= {i for i, node in enumerate(model.graph.node) if names & set(node.output)}
    users = readers(model)
    if any(set(users.get(name, ())) - allowed for name in names):
        return None
    if weight.tensor in constants.initializers:
        stored: onnx.TensorProto = constants.initializers[weight.tensor]
        return stored
    return constant_tensor(constants.producer[weight.tensor])


def _overwrite(tensor: onnx.TensorProto, raw: bytes) -> None:
    for name in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(name)
    forget_place(tensor)
    tensor.raw_data = raw


def _add_tensor(
    model: onnx.ModelProto,
    constants: Constants,
    layers: Sequence[Layer],
    weight: StoredWeight,
    values: Floats,
) -> None:
    """Give the layers a tensor of their own."""
    taken = {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input}
    taken |= {name for node in model.graph.node for name in (*node.input, *node.output)}
    name = f"{weight.tensor}_quantized"
    while name in taken:
        name += "_"
    shape = layers[0].weight_shape
    model.graph.initializer.add(
        name=name,
        data_type=weight.read_type,
        dims=shape,
        raw_data=to_bytes(layers[0].from_filters(values), weight.read_type),
    )
    if model.ir_version < _OPTIONAL_INPUTS:
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, weight.read_type, shape))
    for layer in layers:
        model.graph.node[layer.index].input[layer.slot] = name
