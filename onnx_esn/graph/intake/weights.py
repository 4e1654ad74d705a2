"""Layers whose stored weight cannot be one: of another rank, empty, or not of whole groups."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence

import onnx

from onnx_esn.errors import ModelError
from onnx_esn.graph.intake.tensors import shape_text
from onnx_esn.graph.intake.walk import bodies
from onnx_esn.graph.node_names import describe
from onnx_esn.graph.stored import constant_value

Dims = tuple[int, ...]
Dict = MutableMapping[str, Dims]
_POOLS = ("AveragePool", "LpPool", "MaxPool", "MaxUnpool")
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_LAYERS = (*_CONVOLUTIONS, "Gemm", "MatMul", "Einsum")
_KEEPING = ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Quant")
_AT_LEAST = {"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": None}
_MOST = 1 << 31  # of any such size


def check_weights(model: onnx.ModelProto, name: str) -> None:
    """Check the layers of the main graph and of its bodies, as far as their weights are stored.

    Raises:
        ModelError: naming the layer.
    """
    waiting: list[tuple[onnx.GraphProto, list[Dict]]] = [(model.graph, [])]
    while waiting:
        graph, outer = waiting.pop()
        known = ChainMap({t.name: tuple(t.dims) for t in graph.initializer}, *outer)
        for sparse in graph.sparse_initializer:
            known[sparse.values.name] = tuple(sparse.dims)
        for node in graph.node:
            held = constant_value(node)
            if held is not None and node.output:
                known[node.output[0]] = tuple(held.dims)
            elif node.op_type in _KEEPING and node.output and node.input[:1]:
                if node.input[0] in known:
                    known[node.output[0]] = known[node.input[0]]
            elif node.domain in ("", "ai.onnx"):
                _check_node(node, known, f"{name}: {describe(node)}")
            waiting += [(body, known.maps) for body in bodies(node)]


def _check_node(node: onnx.NodeProto, known: Mapping[str, Dims], where: str) -> None:
    dims = [known.get(i) for i in node.input]
    if node.op_type in _LAYERS:
        for i, shape in zip(node.input, dims, strict=True):
            if shape is not None and 0 in shape:
                raise ModelError(
                    f"{where}: its weight {i!r} is {shape_text(shape)}, which is empty: a layer "
                    "without filters or channels computes nothing; export the model without it"
                )
    if node.op_type in (*_CONVOLUTIONS, *_POOLS):
        _check_attributes(node, where)
    if node.op_type in _CONVOLUTIONS:
        if len(dims) > 1 and dims[1] is not None:
            _check_convolution(node, dims[1], dims[2] if len(dims) > 2 else None, where)
    elif node.op_type == "Gemm":
        for i, shape in zip(node.input[:2], dims[:2], strict=True):
            if shape is not None and len(shape) != 2:
                raise ModelError(f"{where}: {i!r} is {shape_text(shape)}; Gemm multiplies matrices")
    elif node.op_type == "BatchNormalization" and not _per_position(node):
        _check_norm(node.input[1:5], dims[1:5], where)


def _check_attributes(node: onnx.NodeProto, where: str) -> None:
    for attribute in node.attribute:
        if attribute.name not in _AT_LEAST or not attribute.ints:
            continue
        least = _AT_LEAST[attribute.name]
        low, high = min(attribute.ints), max(attribute.ints)
        if (least is not None and low < least) or abs(low) > _MOST or high > _MOST:
            raise ModelError(
                f"{where}: {attribute.name} is {list(attribute.ints)[:8]}, which no window has"
            )


def _check_convolution(node: onnx.NodeProto, weight: Dims, bias: Dims | None, where: str) -> None:
    text = f"its weight {node.input[1]!r} of {shape_text(weight)}"
    if len(weight) < 3:
        raise ModelError(f"{where}: {text} has {len(weight)} axes; a convolution has 3 or more")
    given = {a.name: a for a in node.attribute}
    group = given["group"].i if "group" in given else 1
    if group < 1 or weight[0] % group:
        raise ModelError(f"{where}: {text} cannot be divided into {group} groups")
    for key, axes in {"strides": 1, "dilations": 1, "pads": 2, "output_padding": 1}.items():
        found = len(given[key].ints) if key in given else 0
        if found not in (0, axes * (len(weight) - 2)):
            raise ModelError(f"{where}: {key} has {found} numbers, but {text}")
    kernel = tuple(given["kernel_shape"].ints) if "kernel_shape" in given else weight[2:]
    if kernel != weight[2:]:
        raise ModelError(f"{where}: {text} does not fit the kernel {shape_text(kernel)}")
    filters = weight[0] if node.op_type == "Conv" else weight[1] * group
    if bias is not None and bias != (filters,):
        raise ModelError(
            f"{where}: its bias {node.input[2]!r} is {shape_text(bias)}, but it has {filters} "
            "filters"
        )


def _per_position(node: onnx.NodeProto) -> bool:
    """Whether it normalizes each position by itself, as it could before operator set 9."""
    return any(a.name == "spatial" and not a.i for a in node.attribute)


def _check_norm(names: Sequence[str], dims: Sequence[Dims | None], where: str) -> None:
    found = {n: d for n, d in zip(names, dims, strict=True) if d is not None}
    if len(set(found.values())) > 1 or any(len(d) != 1 or not d[0] for d in found.values()):
        text = ", ".join(f"{n!r} is {shape_text(d)}" for n, d in found.items())
        raise ModelError(f"{where}: needs a value for each channel, but {text}")
