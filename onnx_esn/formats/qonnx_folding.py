"""A QONNX model without the Quant nodes on its weights: what onnxruntime can run."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.quant_operators import DOMAIN, is_quant
from onnx_esn.graph.stored import add_initializer
from onnx_esn.graph.unread import drop, drop_unread, reads


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which the outputs of Quant nodes on constants are stored tensors.

    Their names stay. Quant nodes on activations stay too; nothing else changes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = Constants(copy)
    before = set(reads(copy))
    gone = [
        (i, node)
        for i, node in enumerate(copy.graph.node)
        if is_quant(node) and node.output[0] in constants
    ]
    for _, node in gone:
        value = constants.value(node.output[0], keep=False)
        add_initializer(copy, numpy_helper.from_array(value, node.output[0]))
    names = {node.output[0] for _, node in gone}
    drop(copy, {i for i, _ in gone}, set())
    drop_unread(copy, before)
    for notes in (copy.graph.quantization_annotation, copy.graph.value_info):
        for i in reversed(range(len(notes))):
            note = notes[i]
            if (note.name if hasattr(note, "name") else note.tensor_name) in names:
                del notes[i]
    domains = {node.domain for node in copy.graph.node}
    for i in reversed(range(len(copy.opset_import))):
        if copy.opset_import[i].domain == DOMAIN and DOMAIN not in domains:
            del copy.opset_import[i]
    return copy
