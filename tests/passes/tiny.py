"""Graphs of a few nodes, written out: full control over attributes, types and names."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def graph(nodes, inputs, tensors, *, opset=17, ir=8, elem=TensorProto.FLOAT, output="y"):
    """A model of `nodes` (op, inputs, outputs, attributes) with float inputs {name: shape}."""
    protos = [
        helper.make_node(op, ins, outs, name=f"{op}_{i}", **attrs)
        for i, (op, ins, outs, attrs) in enumerate(nodes)
    ]
    g = helper.make_graph(
        protos,
        "g",
        [helper.make_tensor_value_info(n, elem, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(output, elem, None)],
        [
            t if isinstance(t, onnx.TensorProto) else numpy_helper.from_array(t, n)
            for n, t in tensors.items()
        ],
    )
    model = helper.make_model(g, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    inferred = onnx.shape_inference.infer_shapes(model).graph.output[0]
    model.graph.output[0].CopyFrom(inferred)
    return model


def weights(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def two_convs(*, ir=8, opset=17, norm=True, batch="N", dtype=np.float32, seed=0):
    """Conv(3→8) [→ BatchNormalization] → Relu → depthwise Conv → GlobalAveragePool → Gemm(8→4)."""
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    rng = np.random.default_rng(seed)
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    bn = ["gamma", "beta", "mean", "var"]
    nodes = [
        ("Conv", ["x", "W1"], ["a"], pads),
        ("BatchNormalization", ["a", *bn], ["b"], {}) if norm else ("Identity", ["a"], ["b"], {}),
        ("Relu", ["b"], ["c"], {}),
        ("Conv", ["c", "W2"], ["d"], {**pads, "group": 8}),
        ("GlobalAveragePool", ["d"], ["e"], {}),
        ("Flatten", ["e"], ["f"], {}),
        ("Gemm", ["f", "W3", "bias"], ["y"], {"transB": 1}),
    ]
    tensors = {
        "W1": weights(8, 3, 3, 3, seed=seed, dtype=dtype),
        "W2": weights(8, 1, 3, 3, seed=seed + 1, dtype=dtype),
        "W3": weights(4, 8, seed=seed + 2, dtype=dtype),
        "bias": weights(4, seed=seed + 3, dtype=dtype),
    }
    if norm:
        tensors |= {n: rng.uniform(0.5, 1.5, 8).astype(dtype) for n in bn}
    return graph(nodes, {"x": [batch, 3, 6, 6]}, tensors, opset=opset, ir=ir, elem=elem)


def tensor(model, name):
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)
