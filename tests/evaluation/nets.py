"""Models for the comparison: a small classifier in several forms, and the same under new names."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.net import Net


def classifier(*, batch="N", size=6, classes=4, seed=0, bn=True):
    """conv a → bn → relu → conv b → bn → relu → pool → fc; every node has a name."""
    net = Net(3, size, size, batch=batch, seed=seed)
    y = net.conv("x", 3, 8, name="a", bias=not bn)
    y = net.relu(net.bn(y, 8) if bn else y)
    y = net.conv(y, 8, 6, name="b", bias=not bn)
    y = net.relu(net.bn(y, 6) if bn else y)
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.model(net.gemm(y, 6, classes, name="fc"))


def copy(model):
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def named(model, name):
    """The node of a name."""
    return next(node for node in model.graph.node if node.name == name)


def stored(model, name):
    return next(t for t in model.graph.initializer if t.name == name)


def value(model, name):
    return numpy_helper.to_array(stored(model, name))


def with_value(model, name, array):
    """A copy with other values in an initializer."""
    result = copy(model)
    stored(result, name).CopyFrom(numpy_helper.from_array(array, name))
    return result


def noisy(model, name, scale=0.1, seed=5):
    """A copy with noise on an initializer."""
    W = value(model, name)
    noise = np.random.default_rng(seed).normal(size=W.shape) * scale
    return with_value(model, name, (W + noise).astype(W.dtype))


def folded(model):
    """A copy with each BatchNormalization in the Conv before it."""
    result = copy(model)
    graph = result.graph
    made = {node.output[0]: node for node in graph.node}
    for node in [n for n in graph.node if n.op_type == "BatchNormalization"]:
        gamma, beta, mean, var = (value(model, name) for name in node.input[1:5])
        conv = made[node.input[0]]
        scale = gamma / np.sqrt(var + np.float32(1e-5))
        W = value(model, conv.input[1]) * scale[:, None, None, None]
        stored(result, conv.input[1]).CopyFrom(numpy_helper.from_array(W, conv.input[1]))
        bias = f"{conv.name}.folded"
        graph.initializer.append(numpy_helper.from_array(beta - mean * scale, bias))
        conv.input.append(bias)
        conv.output[0] = node.output[0]
        for name in node.input[1:5]:
            graph.initializer.remove(stored(result, name))
        graph.node.remove(node)
    return result


def dequantized(model, layer, codes, step, *, axis=0):
    """A copy in which a layer reads integer weights behind DequantizeLinear."""
    result = copy(model)
    node = named(result, layer)
    weight = node.input[1]
    result.graph.initializer.remove(stored(result, weight))
    names = [f"{weight}_codes", f"{weight}_step"]
    for name, array in zip(names, (codes, step), strict=True):
        result.graph.initializer.append(numpy_helper.from_array(array, name))
    new = helper.make_node("DequantizeLinear", names, [weight], f"{layer}_dq", axis=axis)
    result.graph.node.insert(0, new)
    return result


def renamed(model, prefix="v"):
    """A copy in which all nodes and inner tensors have other names; None with bodies."""
    graph = model.graph
    if model.functions or any(a.HasField("g") for n in graph.node for a in n.attribute):
        return None
    keep = {info.name for info in (*graph.input, *graph.output)}
    names = {}

    def new(name):
        if not name or name in keep:
            return name
        return names.setdefault(name, f"{prefix}{len(names)}")

    result = copy(model)
    graph = result.graph
    for tensor in (*graph.initializer, *graph.value_info):
        tensor.name = new(tensor.name)
    for index, node in enumerate(graph.node):
        node.name = f"{prefix}_node_{index}"
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    return result
