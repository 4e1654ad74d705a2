"""Neighbours of a layer whose work its integer kernel does as well: zero padding, a bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.layers import Layer

Floats = npt.NDArray[np.float64]


def padding_before(
    model: onnx.ModelProto, facts: Sequence[Facts], layer: Layer
) -> tuple[str, tuple[int, ...]] | None:
    """What the Pad before a Conv reads, and the pads of both together; None without one.

    Only zeros around the image, which a Conv adds for nothing and exactly: a Pad between two
    quantized tensors would run in float.

    Args:
        model: the model.
        facts: what is known of it at two sizes.
        layer: the layer.
    """
    node = model.graph.node[layer.index]
    attrs = attributes(node)
    rank = len(layer.kernel)
    own = attrs.get("pads", [0] * (2 * rank))
    if layer.op != "Conv" or attrs.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    pad = next((n for n in model.graph.node if node.input[0] in n.output), None)
    if pad is None or pad.op_type != "Pad" or pad.domain not in ("", "ai.onnx"):
        return None
    if attributes(pad).get("mode", b"constant") != b"constant" or len(pad.input) < 2:
        return None
    if len(pad.input) > 3 and pad.input[3]:
        return None
    values = [_at_any_size(name, facts) for name in pad.input[1:] if name]
    if any(value is None for value in values) or any(np.any(v != 0) for v in values[1:]):
        return None
    around = np.asarray(values[0]).astype(int).tolist()
    begin, end = around[: rank + 2], around[rank + 2 :]
    if len(around) != 2 * rank + 4 or any((*begin[:2], *end[:2])) or min(around) < 0:
        return None
    added = (*begin[2:], *end[2:])
    return pad.input[0], tuple(a + b for a, b in zip(own, added, strict=True))


def _at_any_size(name: str, facts: Sequence[Facts]) -> npt.NDArray[np.generic] | None:
    """The value of a small tensor that does not depend on the size of the input."""
    first, *others = (at.values.get(name) for at in facts)
    if first is None or any(x is None or not np.array_equal(x, first) for x in others):
        return None
    return first


def bias_behind(
    model: onnx.ModelProto,
    readers: Mapping[str, Sequence[int]],
    constants: Constants,
    facts: Facts,
    layer: Layer,
) -> tuple[int, Floats] | None:
    """The Add of a constant vector that alone reads a MatMul of two matrices, and the vector."""
    node, found = model.graph.node[layer.index], readers.get(layer.output, ())
    if len(found) != 1 or found[0] < 0 or len(facts.shapes.get(node.input[0], ())) != 2:
        return None
    add = model.graph.node[found[0]]
    if add.op_type != "Add" or list(add.input).count(layer.output) != 1:
        return None
    other = add.input[1 - list(add.input).index(layer.output)]
    if other not in constants:
        return None
    value = constants.value(other)
    if value.size not in (1, layer.filters) or value.ndim > 2 or value.shape[-1:] != (value.size,):
        return None
    flat = value.astype(np.float64).reshape(-1)
    return found[0], np.broadcast_to(flat, (layer.filters,))
