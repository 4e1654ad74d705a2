"""Write the correction of a norm point into a model: other parameters, no other nodes.

A BatchNormalization gets new running statistics. A layer takes scale and shift of its output into
weight and bias, exactly up to rounding: W'_c = scale_c·W_c, b'_c = scale_c·b_c + shift_c.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_esn.errors import VerificationError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.node_names import describe
from onnx_esn.graph.norms.points import BIAS, MEAN, VAR, NormPoint
from onnx_esn.graph.number_formats import EPSILON, round_to
from onnx_esn.graph.readers import read_places
from onnx_esn.numerics.grid import detect_halves
from onnx_esn.numerics.row_blocks import row_blocks
from onnx_esn.outside import is_outside, put_values

Array = NDArray[np.generic]
Floats = NDArray[np.float64]


class ModelWriter:
    """Replaces constant inputs of nodes, in the model it is given.

    A stored tensor that one input alone reads is overwritten; any other gets a tensor beside it,
    since exporters store equal vectors once. Nodes keep their index until `finish`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._nodes = model.graph.node
        self._places = read_places(model)
        self._constants = Constants(model)
        self._tensors = {t.name: t for t in model.graph.initializer}
        self._names = {*self._places, *self._tensors, *(i.name for i in model.graph.input)}
        for node in model.graph.node:
            self._names.update(node.output)
            self._names.update(captured(node))
        self._left: list[str] = []

    def own_statistics(self, points: Sequence[NormPoint]) -> None:
        """Give each BatchNormalization among the points statistics that nothing else reads."""
        for point in points:
            if point.layer is None:
                for slot in (MEAN, VAR):
                    self._set(point.index, slot, self._value(point.index, slot))

    def set_statistics(self, point: NormPoint, mean: Array, var: Array) -> None:
        """Set running mean (C,) and variance (C,) of a BatchNormalization.

        Raises:
            VerificationError: a value is not finite.
        """
        self._set(point.index, MEAN, mean)
        self._set(point.index, VAR, var)

    def fold(self, point: NormPoint, scale: Array, shift: Array) -> None:
        """Fold scale (C,) and shift (C,) of a layer's output into its weight and bias.

        A MatMul without a bias has no place for the shift, which must then be 0.

        Raises:
            VerificationError: a weight or bias is not finite in its type.
        """
        layer, node = point.layer, self._nodes[point.index]
        assert layer is not None
        a, d = (x.astype(np.float64).reshape(-1) for x in (scale, shift))
        W = self._constants.value(layer.source)
        folded = _scaled(layer.as_filters(W), a)
        _check_finite(node, folded)
        self._overwrite(layer.source, layer.from_filters(folded))
        if point.axis == -2:
            a, d = a[:, None], d[:, None]
        if layer.op != "MatMul":
            beta = attributes(node).get("beta", 1.0)
            bias = self._value(point.index, BIAS) if layer.bias else np.zeros((), W.dtype)
            self._set(point.index, BIAS, _cast(bias.astype(np.float64) * a + d / beta, W.dtype))
        elif point.shift is not None:
            inputs = self._nodes[point.shift].input
            slot = 1 if inputs[0] == layer.output else 0
            bias = self._value(point.shift, slot)
            self._set(point.shift, slot, _cast(bias.astype(np.float64) * a + d, W.dtype))

    def finish(self) -> None:
        """Remove constants that have lost their last reader, and nodes that computed them."""
        graph = self.model.graph
        made = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
        tensors: set[str] = set()
        nodes: set[int] = set()
        while self._left:
            name = self._left.pop()
            index = made.get(name)
            if self._places[name]:
                continue
            if index is None:
                tensors.add(name)
            elif index not in nodes and not any(self._places[o] for o in graph.node[index].output):
                nodes.add(index)
                for slot, read in enumerate(graph.node[index].input):
                    if read:
                        self._places[read].remove((index, slot))
                        self._left.append(read)
        for index in sorted(nodes, reverse=True):
            del graph.node[index]
        for entries in (graph.initializer, graph.input):
            for i in reversed(range(len(entries))):
                if entries[i].name in tensors:
                    del entries[i]

    def _value(self, index: int, slot: int) -> Array:
        return self._constants.value(self._nodes[index].input[slot])

    def _set(self, index: int, slot: int, value: Array) -> None:
        """Set a constant input, or one that is missing."""
        node = self._nodes[index]
        _check_finite(node, value)
        while len(node.input) <= slot:
            node.input.append("")
        old = node.input[slot]
        if old in self._tensors and self._places[old] == [(index, slot)]:
            self._overwrite(old, value)
            return
        name = f"{node.name or node.output[0]}.{_SLOTS.get(slot, 'parameter')}"
        while name in self._names:
            name += "_"
        self._names.add(name)
        tensor = self.model.graph.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(value, name))
        self._tensors[name] = tensor
        if self.model.ir_version < 4:  # every initializer is an input as well
            info = helper.make_tensor_value_info(name, tensor.data_type, value.shape)
            self.model.graph.input.append(info)
        node.input[slot] = name
        self._places[name] = [(index, slot)]
        if old:
            self._places[old].remove((index, slot))
            self._left.append(old)

    def _overwrite(self, name: str, value: Array) -> None:
        """Replace a stored tensor, or the value of a Constant node."""
        tensor = self._tensors.get(name)
        if tensor is not None and is_outside(tensor):  # a weight, scaled
            put_values(tensor, value)
            return
        new = numpy_helper.from_array(np.ascontiguousarray(value), name)
        if tensor is None:
            node = self._constants.producer[name]
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("value", new))
            return
        if tensor.HasField("doc_string"):
            new.doc_string = tensor.doc_string
        new.metadata_props.extend(tensor.metadata_props)
        tensor.CopyFrom(new)
        for info in self.model.graph.input:
            if info.name == name:
                info.type.CopyFrom(helper.make_tensor_type_proto(new.data_type, value.shape))


_SLOTS = {BIAS: "bias", MEAN: "running_mean", VAR: "running_var"}


def _scaled(W: Array, scale: Floats) -> Array:
    """Scale filters (C, K) by (C,), some of them in float64 at a time. On a grid the step takes the
    factor, so that weights are rounded once and the codes stay readable."""
    kind = helper.np_dtype_to_tensor_dtype(W.dtype)
    grid = detect_halves(W, EPSILON[kind]) if kind in EPSILON else None
    # A step in the stored type: formats that store it then give these weights to the last bit.
    step = None if grid is None else round_to(grid.step * scale, kind)
    result = np.empty(W.shape, W.dtype)
    for rows in row_blocks(*W.shape):
        if grid is None or step is None:
            new = W[rows].astype(np.float64) * scale[rows, None]
        else:
            new = step[rows, None] * (grid.halves[rows] / 2.0)
        result[rows] = _cast(new, W.dtype)
    return result


def _cast(value: Array, dtype: np.dtype[np.generic]) -> Array:
    with np.errstate(over="ignore"):  # an infinity is reported by who stores it
        return np.asarray(value).astype(dtype)


def _check_finite(node: onnx.NodeProto, value: Array) -> None:
    if not np.isfinite(value).all():
        raise VerificationError(
            f"{describe(node)}: its corrected parameters are not finite in {value.dtype}"
        )
