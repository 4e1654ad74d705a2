"""The zero padding of a convolution: in its attributes, and in a Pad before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.inputs import Shape
from onnx_esn.graph.layers import Layer

Known = Callable[[str], NDArray[Any] | None]
Readers = Mapping[str, Sequence[int]]


class ZeroPad(NamedTuple):
    """A Pad that only puts zeros around the image.

    Attributes:
        node: the Pad.
        begin, end: zeros before and after, one number a spatial axis.
    """

    node: onnx.NodeProto
    begin: tuple[int, ...]
    end: tuple[int, ...]


def zero_pad_before(
    model: onnx.ModelProto, layer: Layer, known: Known, readers: Readers
) -> ZeroPad | None:
    """The Pad with zeros that makes the input of a Conv and of nothing else.

    Args:
        model: the model.
        layer: one of its layers.
        known: the value of a tensor that is the same for all data, or None.
        readers: indices of the nodes that read each tensor.
    """
    name = model.graph.node[layer.index].input[0]
    if layer.op != "Conv" or len(readers.get(name, ())) != 1:
        return None
    node = next((n for n in model.graph.node[: layer.index] if name in n.output), None)
    if node is None or node.op_type != "Pad" or node.domain not in ("", "ai.onnx"):
        return None
    attrs = attributes(node)
    others = [known(i) if i else None for i in node.input[1:]]
    if any(i and value is None for i, value in zip(node.input[1:], others, strict=True)):
        return None
    pads = others[0] if others else attrs.get("pads")
    fill = others[1] if len(others) > 1 else attrs.get("value", 0.0)
    if attrs.get("mode", b"constant") != b"constant" or pads is None or len(others) > 2:
        return None  # with axes of its own it is a newer form that exporters do not write here
    sizes = np.asarray(pads).reshape(2, -1)
    if sizes.shape[1] != 2 + len(layer.kernel) or sizes[:, :2].any() or (sizes < 0).any():
        return None
    if fill is not None and np.any(fill):
        return None
    return ZeroPad(node, tuple(map(int, sizes[0, 2:])), tuple(map(int, sizes[1, 2:])))


def own_pads(
    attrs: Mapping[str, Any], layer: Layer, source: Shape | None
) -> tuple[tuple[int, ...], tuple[int, ...]] | str:
    """Zeros that a Conv or ConvTranspose puts before and after each axis, or why that is not known.

    Args:
        attrs: its attributes.
        layer: the layer.
        source: shape of its input where that is the same for all inputs of the model, else None.
    """
    rank = len(layer.kernel)
    mode = attrs.get("auto_pad", b"NOTSET") or b"NOTSET"
    if layer.op == "ConvTranspose" and (mode != b"NOTSET" or attrs.get("output_shape")):
        return "its padding follows from the shape of its output"
    if mode == b"VALID":
        return (0,) * rank, (0,) * rank
    if mode == b"NOTSET":
        pads = attrs.get("pads") or [0] * (2 * rank)
        return tuple(pads[:rank]), tuple(pads[rank:])
    begin, end = [], []
    for k, kernel in enumerate(layer.kernel):
        stride = (attrs.get("strides") or [1] * rank)[k]
        span = (kernel - 1) * (attrs.get("dilations") or [1] * rank)[k] + 1
        if stride == 1:
            total = span - 1
        elif source is None:
            return "its padding depends on the size of the input"
        else:
            total = max(0, (-(-source[2 + k] // stride) - 1) * stride + span - source[2 + k])
        less, more = total // 2, total - total // 2
        begin.append(less if mode == b"SAME_UPPER" else more)
        end.append(more if mode == b"SAME_UPPER" else less)
    return tuple(begin), tuple(end)
