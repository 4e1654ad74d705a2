"""Write new weights of a model's layers, in the type the old ones had.

Whatever else reads the same tensor keeps the old values: the layer then gets a tensor of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.layer_weight import Block
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.number_formats import stored_dtype, to_stored
from onnx_esn.graph.readers import readers, reads
from onnx_esn.graph.weights import (
    Floats,
    StoredWeight,
    as_stored,
    constant_tensor,
    path_outputs,
)
from onnx_esn.outside import is_outside, put_values

_OPTIONAL_INPUTS = 4  # before this IR version every initializer is an input of the graph too


class WeightWriter:
    """Writes weights of one model, in place.

    Who makes and who reads a tensor is looked up once, for all weights that are written. Meanwhile
    no node may be added; nodes may come to read other tensors, never more of these.

    Args:
        model: the model.
        constants: its constants; the values that they keep of a weight are those before the change.
    """

    def __init__(self, model: onnx.ModelProto, constants: Constants) -> None:
        self.model, self.constants = model, constants

    def write(self, layers: Sequence[Layer], weight: StoredWeight, values: Floats) -> bool:
        """Write values (M, K), rounded to the stored type by the caller; see `write_blocks`."""
        return self.write_blocks(layers, weight, lambda block: values[block.rows])

    def write_blocks(
        self, layers: Sequence[Layer], weight: StoredWeight, values: Callable[[Block], Floats]
    ) -> bool:
        """Write values, rounded to the stored type, made for a few filters at a time.

        Args:
            layers: all layers that share the weight.
            weight: as it is now.
            values: (m, K) for a block of the weight; asked for once for each, in order.

        Returns:
            Whether any differs from what was there.

        Raises:
            ValueError: the weight is computed in the graph or not stored as floats.
        """
        if weight.locked:
            raise ValueError(f"{layers[0].name}: {weight.locked}")
        tensor = self._own_tensor(layers, weight)
        kind = weight.read_type if tensor is None else weight.type
        rows, modified = np.empty(weight.shape, stored_dtype(kind)), False
        for block in weight.blocks():
            new = values(block)
            modified = modified or not np.array_equal(new, block.W)
            rows[block.rows] = to_stored(new, kind)
        if not modified:
            return False
        if tensor is None:
            self._add_tensor(layers, weight, rows)
        else:
            put_values(tensor, as_stored(layers[0], self.constants, rows))
        return True

    @cached_property
    def _makers(self) -> dict[str, int]:
        return {name: i for i, node in enumerate(self.model.graph.node) for name in node.output}

    @cached_property
    def _users(self) -> dict[str, list[int]]:
        return readers(self.model)

    def _own_tensor(self, layers: Sequence[Layer], weight: StoredWeight) -> onnx.TensorProto | None:
        """The stored tensor, or None where others than these layers read it."""
        names = {name for layer in layers for name in path_outputs(layer, self.constants)}
        allowed = {layer.index for layer in layers}
        allowed |= {self._makers[name] for name in names if name in self._makers}
        for name in names:
            others = set(self._users.get(name, ())) - allowed
            if any(i < 0 or reads(self.model.graph.node[i], name) for i in others):
                return None
        if weight.tensor in self.constants.initializers:
            stored: onnx.TensorProto = self.constants.initializers[weight.tensor]
            return stored
        return constant_tensor(self.constants.producer[weight.tensor])

    def _add_tensor(
        self, layers: Sequence[Layer], weight: StoredWeight, rows: npt.NDArray[Any]
    ) -> None:
        """Give the layers a tensor of their own, of filters (M, K)."""
        model = self.model
        taken = {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input}
        taken |= {name for node in model.graph.node for name in (*node.input, *node.output)}
        name = f"{weight.tensor}_quantized"
        while name in taken:
            name += "_"
        shape = layers[0].weight_shape
        source = self.constants.initializers.get(weight.tensor)
        added = model.graph.initializer.add(name=name, data_type=weight.read_type, dims=shape)
        values = layers[0].from_filters(rows)
        put_values(added, values, outside=source is not None and is_outside(source))
        if model.ir_version < _OPTIONAL_INPUTS:
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(name, weight.read_type, shape)
            )
        for layer in layers:
            model.graph.node[layer.index].input[layer.slot] = name
