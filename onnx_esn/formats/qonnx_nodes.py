"""Quant nodes in a graph: their operands, and what is declared of their outputs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_esn.formats.qonnx_forms import QuantForm
from onnx_esn.graph import metadata
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.quant_operators import DOMAIN, evaluate_quant
from onnx_esn.graph.stored import add_initializer
from onnx_esn.graph.unread import drop_unread, reads
from onnx_esn.graph.weights import StoredWeight

Singles = NDArray[np.float32]

# Metadata key of the bits of each filter: of a Quant, or of the model (then by Quant) where nodes
# have no metadata.
BITS = "quant_bits"
_VERSION = 1  # of the operator set: the one that the package asks for


@dataclass(frozen=True)
class WeightQuant:
    """The Quant of a weight.

    Attributes:
        layers: the layers that read it, alike.
        weight: their weight, on a grid.
        form: the levels of the Quant.
    """

    layers: tuple[Layer, ...]
    weight: StoredWeight
    form: QuantForm

    @property
    def operands(self) -> dict[str, Singles]:
        """x, scale, zero point and bit width as stored; a number for all filters is a scalar."""
        layer = self.layers[0]
        return {
            "x": np.asarray(layer.from_filters(self.weight.W), np.float32),
            "scale": _spread(layer, self.form.scale),
            "zero_point": _spread(layer, self.form.zero_point),
            "bits": np.array(self.form.bits, np.float32),
        }

    @property
    def attributes(self) -> dict[str, int | str]:
        """The attributes of the node."""
        signed = int(self.form.signed)
        return {"signed": signed, "narrow": signed, "rounding_mode": "ROUND"}

    @property
    def mixed(self) -> bool:
        """Whether its filters have different bits."""
        return len(set(self.weight.filter_bits.tolist())) > 1

    def errors(self) -> NDArray[np.float64]:
        """By how much the output of the node differs from the weight."""
        operands = self.operands
        made = evaluate_quant("Quant", dict(self.attributes), list(operands.values()))
        return np.abs(made.astype(np.float64) - operands["x"])


def add_quants(model: onnx.ModelProto, constants: Constants, quants: Sequence[WeightQuant]) -> None:
    """Put a Quant in front of the first layer that reads each weight, in place.

    A weight that is not an initializer becomes one, so that all operands are. Whatever else reads
    a weight reads on what it read.
    """
    before = set(reads(model))
    names = Names(model.graph)
    for node in model.graph.node:
        names.reserve(node)
    adding = _Adding(model, names, {}, {})
    ahead: dict[int, list[onnx.NodeProto]] = defaultdict(list)
    for quant in quants:
        first = min(layer.index for layer in quant.layers)
        ahead[first].append(adding.node(quant, constants))
    nodes = [n for i, node in enumerate(model.graph.node) for n in (*ahead.get(i, ()), node)]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    drop_unread(model, before)
    if all(o.domain != DOMAIN for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, _VERSION))
    if model.ir_version < metadata.NODE_IR_VERSION and any(q.mixed for q in quants):
        metadata.replace(model, {BITS: _compact(adding.bits)})


@dataclass(frozen=True)
class _Adding:
    """What is being added to a model.

    Attributes:
        model: the model.
        names: those that are taken.
        scalars: operands that are stored once: their names by kind and value.
        bits: of the filters, by the name of the Quant.
    """

    model: onnx.ModelProto
    names: Names
    scalars: dict[tuple[str, float], str]
    bits: dict[str, list[int]]

    def node(self, quant: WeightQuant, constants: Constants) -> onnx.NodeProto:
        """The Quant of a weight, which its layers read from now on."""
        operands = quant.operands
        x = operands.pop("x")
        read = quant.layers[0].weight
        source = constants.root(read)
        if source not in constants.initializers:
            source = self._initializer(x, f"{read}_float")
        inputs = [source, *(self._operand(v, what, source) for what, v in operands.items())]
        out = self.names.fresh(f"{source}_quant")
        node = helper.make_node("Quant", inputs, [out], out, domain=DOMAIN)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in quant.attributes.items())
        self._declare(node, quant)
        for layer in quant.layers:
            self.model.graph.node[layer.index].input[layer.slot] = out
        return node

    def _operand(self, value: Singles, what: str, source: str) -> str:
        if value.ndim or what == "scale":
            return self._initializer(value, f"{source}_{what}")
        key = what, float(value)
        if key not in self.scalars:
            self.scalars[key] = self._initializer(value, f"quant_{what}_{key[1]:g}")
        return self.scalars[key]

    def _initializer(self, value: Singles, name: str) -> str:
        fresh = self.names.fresh(name)
        add_initializer(self.model, numpy_helper.from_array(value, fresh))
        return fresh

    def _declare(self, node: onnx.NodeProto, quant: WeightQuant) -> None:
        """Shape, type and width of the output: no inference of ONNX knows them."""
        (out,) = node.output
        graph, shape = self.model.graph, quant.layers[0].weight_shape
        graph.value_info.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, shape))
        note = graph.quantization_annotation.add(tensor_name=out)
        width = f"SCALEDINT<{quant.form.bits}>"
        note.quant_parameter_tensor_names.add(key="finn_datatype", value=width)
        self.bits[node.name] = quant.weight.filter_bits.tolist()
        if quant.mixed and self.model.ir_version >= metadata.NODE_IR_VERSION:
            metadata.replace(node, {BITS: _compact(self.bits[node.name])})


def _spread(layer: Layer, vector: NDArray[np.float64]) -> Singles:
    """A number per filter as an array that broadcasts against the weight, as small as can be."""
    if (vector == vector[0]).all():
        return np.asarray(vector[0], np.float32)
    per_filter = layer.parameters // layer.filters
    full = layer.from_filters(np.repeat(vector[:, None], per_filter, axis=1))
    for axis in range(full.ndim):
        first = np.take(full, [0], axis)
        if (full == first).all():
            full = first
    return np.ascontiguousarray(full, np.float32)


def _compact(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))
