"""QONNX's Quant once more, in two ways that know nothing of ours: by the number, and by ONNX."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

ROUND = {
    "ROUND": round,  # of Python: half to even
    "HALF_EVEN": round,
    "CEIL": math.ceil,
    "FLOOR": math.floor,
    "DOWN": math.trunc,
    "UP": lambda x: math.ceil(x) if x > 0 else math.floor(x),
    "HALF_UP": lambda x: math.floor(x + 0.5) if x > 0 else math.ceil(x - 0.5),
    "HALF_DOWN": lambda x: math.ceil(x - 0.5) if x > 0 else math.floor(x + 0.5),
}


def naive_quant(x, scale, zero, bits, *, signed, narrow, mode="ROUND"):
    """One number, in Python's own (double precision) floats."""
    y = x / scale + zero
    if signed and bits == 1:
        return (1 if y >= 0 else -1) * scale - zero * scale
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    return (ROUND[mode](min(max(y, low), high)) - zero) * scale


def expanded(model):
    """A copy in which standard operators take the place of each Quant (of rounding mode ROUND)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {t.name: numpy_helper.to_array(t) for t in copy.graph.initializer}
    nodes = []
    for k, node in enumerate(copy.graph.node):
        if node.op_type != "Quant":
            nodes.append(node)
            continue
        attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert attrs.pop("rounding_mode") == b"ROUND"
        x, scale, zero, bits = node.input
        b, signed, narrow = int(stored[bits]), attrs.pop("signed"), attrs.pop("narrow")
        assert not attrs
        names = iter(f"expanded_{k}_{i}" for i in range(9))

        def op(kind, *inputs, out=None, names=names):
            nodes.append(helper.make_node(kind, inputs, [out or next(names)]))
            return nodes[-1].output[0]

        def number(value, names=names):
            name = next(names)
            tensor = numpy_helper.from_array(np.array(value, np.float32), name)
            nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            return name

        y = op("Add", op("Div", x, scale), zero)
        if signed and b == 1:
            sign = op("Where", op("GreaterOrEqual", y, number(0)), number(1), number(-1))
            op("Mul", op("Sub", sign, zero), scale, out=node.output[0])
            continue
        low = -(2 ** (b - 1)) + narrow if signed else 0
        high = 2 ** (b - 1) - 1 if signed else 2**b - 1 - narrow
        y = op("Round", op("Clip", y, number(low), number(high)))
        op("Mul", op("Sub", y, zero), scale, out=node.output[0])
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(copies)
    for i in reversed(range(len(copy.opset_import))):
        if copy.opset_import[i].domain == "qonnx.custom_op.general":
            del copy.opset_import[i]
    copy.opset_import[0].version = max(copy.opset_import[0].version, 12)  # GreaterOrEqual
    return copy
