"""Write layers with integer weights, and the QDQ pairs between them, into a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from onnx_esn.calibration.ranges import Range
from onnx_esn.formats.activations import Pair, QdqWriter
from onnx_esn.formats.activations_grid import Kind, activation_grid
from onnx_esn.passes.activations.bias import with_bias
from onnx_esn.passes.activations.placement import Placement, data_slots
from onnx_esn.passes.activations.weights import IntegerLayer


def absorb(model: onnx.ModelProto, layers: Sequence[IntegerLayer]) -> onnx.ModelProto:
    """The model, changed: layers make the outputs of the nodes that they absorb."""
    gone = {index for x in layers for index in x.absorbed}
    for x in layers:
        node = model.graph.node[x.layer.index]
        if x.absorbed:
            node.name = x.layer.name
            node.output[0] = x.output
        if x.layer.op == "MatMul" and x.absorbed:
            node.op_type = "Gemm"
        if x.bias is None:  # what it has counts for nothing (beta = 0)
            del node.input[2:]
        gone_too = {"alpha", "beta"} if x.layer.op == "Gemm" else set()
        if x.pads is not None:
            node.input[0] = x.source
            gone_too = {"auto_pad", "pads"}
        for i in reversed(range(len(node.attribute))):
            if node.attribute[i].name in gone_too:
                del node.attribute[i]
        if x.pads is not None:
            node.attribute.append(helper.make_attribute("pads", x.pads))
    for index in sorted(gone, reverse=True):
        del model.graph.node[index]
    return model


def write(
    model: onnx.ModelProto,
    layers: Sequence[IntegerLayer],
    placement: Placement,
    ranges: Mapping[str, Range],
    kind: Kind,
) -> list[IntegerLayer]:
    """Write the integers into the model; returns the layers as they were written."""
    grids = {root: activation_grid(*ranges[root], kind) for root in placement.roots}
    index = {node.output[0]: i for i, node in enumerate(model.graph.node) if node.output}
    writer, final = QdqWriter(model), []
    for x in layers:
        i = index[x.output]
        scale = grids[placement.tensors[model.graph.node[i].input[0]]].scale
        done, bias = with_bias(x, scale)
        axis = x.layer.filter_axis
        writer.weight(i, x.layer.from_filters(done.codes()), done.scale, axis)
        if bias is not None:
            writer.bias(i, bias, np.float32(scale) * done.scale.astype(np.float32))
        final.append(replace(done, codes=x.codes))  # a copy of them would be kept
    readers_of: dict[str, list[tuple[int, int]]] = {}
    for i in sorted(placement.nodes):
        node = model.graph.node[i]
        for slot in data_slots(node):
            readers_of.setdefault(node.input[slot], []).append((i, slot))
    writer.pairs(
        [
            Pair(name, root, None if name in placement.made else tuple(readers_of[name]))
            for name, root in placement.tensors.items()
        ],
        grids,
        kind,
    )
    writer.finish()
    return final
