"""Large tensors, cut and put into a rewritten model last.

A rewriting that fails has not copied them then, and none of the copies that are made on the way
holds them. Until then stand-ins of the new shape are in their places.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_esn.graph.channels.carrying import Removed
from onnx_esn.graph.stored import constant_value, is_heavy, stand_in
from onnx_esn.outside import is_outside, put_values, tensor_values

Maker = Callable[[], onnx.TensorProto]


@dataclass
class Filling:
    """What takes the place of the stand-ins.

    Attributes:
        stored: makers of initializers, by name.
        constants: makers of the values of Constant nodes, by the node's output.
    """

    stored: dict[str, Maker] = field(default_factory=dict)
    constants: dict[str, Maker] = field(default_factory=dict)

    def initializer(self, old: onnx.TensorProto, cut: Removed, name: str) -> onnx.TensorProto:
        """An initializer, cut and under another name, or a stand-in for it."""
        make = partial(_sliced, old, cut, name) if cut else partial(_itself, old)
        return _put_off(old, cut, name, make, self.stored)

    def made(self, old: onnx.TensorProto, cut: Removed, name: str, make: Maker) -> onnx.TensorProto:
        """The same of an initializer that `make` makes of the value of a Constant node."""
        return _put_off(old, cut, name, make, self.stored)

    def constant(
        self, old: onnx.TensorProto, cut: Removed, name: str, make: Maker
    ) -> onnx.TensorProto:
        """The same of the value of the Constant node that makes `name`."""
        self.constants.pop(name, None)
        return _put_off(old, cut, name, make, self.constants)

    def keep(self, node: onnx.NodeProto) -> None:
        """The value of a Constant node, for which there is a stand-in already, comes as it is."""
        value = constant_value(node)
        if value is not None and is_heavy(value.dims):
            self.constants[node.output[0]] = partial(_itself, value)

    def fill(self, model: onnx.ModelProto) -> None:
        """Put them in, one at a time, the largest while the model is still small."""
        places = [(t, self.stored.get(t.name)) for t in model.graph.initializer]
        for node in model.graph.node if self.constants else ():
            value = constant_value(node)
            if value is not None:
                places.append((value, self.constants.get(node.output[0])))
        for tensor, make in sorted(places, key=lambda p: -math.prod(p[0].dims)):
            if make is not None:
                tensor.CopyFrom(make())


def without(value: NDArray[np.generic], cut: Removed) -> NDArray[np.generic]:
    """What is left of an array, in one step: it may be most of the model."""
    kept = [np.delete(np.arange(n), cut.get(axis, ())) for axis, n in enumerate(value.shape)]
    if len(cut) == 1:
        (axis,) = cut
        return np.ascontiguousarray(np.take(value, kept[axis], axis))
    return np.ascontiguousarray(value[np.ix_(*kept)])


def _sliced(tensor: onnx.TensorProto, cut: Removed, name: str) -> onnx.TensorProto:
    left = without(tensor_values(tensor), cut)
    if is_outside(tensor):
        result = stand_in(tensor, name, left.shape)
        put_values(result, left, outside=True)
    else:
        result = numpy_helper.from_array(left, name)
    # numpy_helper picks the type from the array; bfloat16 and 4-bit types come back as they were.
    assert result.data_type == tensor.data_type, tensor.name
    result.doc_string = tensor.doc_string
    result.metadata_props.extend(tensor.metadata_props)
    return result


def _put_off(
    old: onnx.TensorProto, cut: Removed, name: str, make: Maker, makers: dict[str, Maker]
) -> onnx.TensorProto:
    dims = [n - len(cut.get(axis, ())) for axis, n in enumerate(old.dims)]
    if not is_heavy(dims):
        return make()
    makers[name] = make
    return stand_in(old, name, dims)


def _itself(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return tensor
