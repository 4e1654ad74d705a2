"""Scale channels: parameters of who makes and who reads them, bounds of a Clip between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from onnx_esn.formats.weight_writing import WeightWriter
from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.channels.propagation import Claim, align
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.hoisting import Names
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.number_formats import EPSILON, round_to, to_bytes
from onnx_esn.graph.stored import add_initializer
from onnx_esn.graph.unread import drop_unread, reads
from onnx_esn.graph.weights import read_weight
from onnx_esn.passes.base import copied
from onnx_esn.passes.equalizing.homogeneity import clip_bounds
from onnx_esn.passes.equalizing.scalable import Scalable

Floats = npt.NDArray[np.float64]


def rescaled(s: Scalable, factors: Floats) -> onnx.ModelProto:
    """A copy of the model in which channels are multiplied with `factors`.

    Args:
        s: the model.
        factors: t > 0 by label; 1 for label 0 and for what is locked.
    """
    model = copied(s.model)
    before = set(reads(model))
    writer, names = WeightWriter(model, Constants(model)), Names(model.graph)
    for node in model.graph.node:
        names.reserve(node)
    for (index, slot), claims in s.claims.items():
        if any((factors[claim.labels] != 1).any() for claim in claims):
            _scale(s, writer, names, index, slot, claims, factors)
    _scale_bounds(s, model, names, factors)
    drop_unread(model, before)
    return model


def factor(claims: Sequence[Claim], factors: Floats) -> Floats:
    """What a parameter is multiplied with, compact."""
    total: Floats = np.ones(())
    for claim in claims:
        t = factors[claim.labels]
        total = total / t if claim.role == "input" else total * t
    return total


def _scale(
    s: Scalable,
    writer: WeightWriter,
    names: Names,
    index: int,
    slot: int,
    claims: Sequence[Claim],
    factors: Floats,
) -> None:
    by = factor(claims, factors)
    layer = s.layers.get(index)
    if layer is not None and layer.slot == slot:
        weight = read_weight(layer, s.constants)
        writer.write_blocks(
            [layer], weight, lambda b: round_to(b.W * of_filters(layer, by, b.rows), weight.type)
        )
        return
    node = writer.model.graph.node[index]
    old = s.constants.value(node.input[slot])
    kind = helper.np_dtype_to_tensor_dtype(old.dtype)
    value = old.astype(np.float64) * by
    if kind not in EPSILON or not (value != old.astype(np.float64)).any():
        return
    name = names.fresh(f"{node.input[slot]}_scaled")
    add_initializer(writer.model, _tensor(name, kind, value))
    node.input[slot] = name


def of_filters(layer: Layer, by: Floats, rows: slice) -> Floats:
    """What some filters are multiplied with, (m, K); made for these alone.

    All of them would take twice what the weight does.

    Args:
        layer: whose filters.
        by: what the weight is multiplied with; broadcasts against it.
        rows: which filters.
    """
    shape = layer.weight_shape
    if layer.op == "ConvTranspose":
        return np.asarray(layer.as_filters(np.broadcast_to(by, shape))[rows], np.float64)
    first = np.moveaxis(by.reshape((1,) * (len(shape) - by.ndim) + by.shape), layer.filter_axis, 0)
    some = first[rows] if len(first) > 1 else first
    inner = [n for axis, n in enumerate(shape) if axis != layer.filter_axis]
    count = len(range(*rows.indices(layer.filters)))
    return np.broadcast_to(some, (count, *inner)).reshape(count, -1)


def _tensor(name: str, kind: int, value: Floats) -> TensorProto:
    return TensorProto(name=name, data_type=kind, dims=value.shape, raw_data=to_bytes(value, kind))


def _scale_bounds(s: Scalable, model: onnx.ModelProto, names: Names, factors: Floats) -> None:
    """Clip becomes Max (or Relu) and Min with a bound for each channel."""
    p = s.propagation
    for index in reversed(range(len(model.graph.node))):
        node = model.graph.node[index]
        if node.op_type != "Clip" or node.domain not in ("", "ai.onnx"):
            continue
        labels = p.labels.get(node.input[0])
        if labels is None or not (factors[labels] != 1).any():
            continue
        low, high = clip_bounds(p, node)
        if not low and not high:
            continue
        new = _bounded(s, model, names, node, align(labels, labels.ndim), (low, high), factors)
        del model.graph.node[index]
        for made in reversed(new):
            model.graph.node.insert(index, made)


def _bounded(
    s: Scalable,
    model: onnx.ModelProto,
    names: Names,
    node: onnx.NodeProto,
    labels: Labels,
    bounds: tuple[float | None, float | None],
    factors: Floats,
) -> list[onnx.NodeProto]:
    kind = s.propagation.facts.types[node.input[0]]
    steps = [(op, b) for op, b in zip(("Max", "Min"), bounds, strict=True) if b is not None]
    made: list[onnx.NodeProto] = []
    name = node.input[0]
    for i, (op, bound) in enumerate(steps):
        last = i == len(steps) - 1
        out = node.output[0] if last else names.fresh(f"{node.output[0]}_{op.lower()}")
        inputs = [name]
        if op == "Max" and bound == 0.0:
            op = "Relu"
        else:
            inputs.append(names.fresh(f"{node.output[0]}_bound"))
            add_initializer(model, _tensor(inputs[1], kind, bound * factors[labels]))
        # The last one keeps the name: who looks for the node of this output finds it.
        made.append(helper.make_node(op, inputs, [out], name=node.name if last else out))
        name = out
    made[-1].metadata_props.extend(node.metadata_props)
    return made
