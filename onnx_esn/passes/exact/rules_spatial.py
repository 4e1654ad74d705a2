"""Numbers for operators that mix the positions of a channel: pooling, resizing, reductions."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_esn.graph.channels.propagation import along
from onnx_esn.graph.evaluate import attributes
from onnx_esn.passes.exact.values import Ids
from onnx_esn.passes.exact.walk import Walk, attribute

_OF_CONSTANT = ("ReduceMean", "ReduceMax", "ReduceMin")
_OF_ZERO = ("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare")


def spatial(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Pooling, resizing, sampling: a function of each channel."""
    out, name = node.output[0], node.input[0]
    rank = len(walk.shape(out))
    ids = walk.view(name, [1], len(walk.shape(name))).reshape(-1)
    known = walk.values.constants(ids)
    keep = ~np.isnan(known) if _keeps_constants(node) else known == 0
    if node.op_type in ("Resize", "Upsample") and _outside(node) != 0.0:
        keep &= False
    new = _function(walk, node, ids)
    cubic = attribute(node, "mode", b"") == b"cubic"
    if (_keeps_constants(node) or node.op_type == "AveragePool") and not cubic:
        low, high = walk.values.ranges(ids)
        if not _keeps_constants(node):  # it counts the zeros of its padding
            low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        new = walk.values.within(new, low, high)
    walk.put(out, along(np.where(keep, ids, new), 1, rank))


def _function(walk: Walk, node: onnx.NodeProto, ids: Ids) -> Ids:
    """Numbers of a function, of one channel each, that also depends on the other inputs."""
    shapes = walk.rest(node.input[0], [1], len(walk.shape(node.input[0])))
    out = node.output[0]
    head = (walk.signature(node), shapes, walk.rest(out, [1], len(walk.shape(out))))
    return walk.keyed((head, tuple(node.input[1:])), ids.reshape(-1, 1))


def _keeps_constants(node: onnx.NodeProto) -> bool:
    """Whether a constant channel comes out as it went in."""
    attrs = attributes(node)
    if node.op_type in ("GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Upsample"):
        return True
    if node.op_type == "Resize":
        return attrs.get("coordinate_transformation_mode") != b"tf_crop_and_resize"
    if node.op_type == "AveragePool":
        padded = any(attrs.get("pads", ())) or attrs.get("ceil_mode", 0)
        padded = padded or attrs.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER")
        return not (attrs.get("count_include_pad", 0) and padded)
    return False


def _outside(node: onnx.NodeProto) -> float:
    """What a Resize puts where it reads outside of its input."""
    attrs = attributes(node)
    cropped = attrs.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    return float(attrs.get("extrapolation_value", 0.0)) if cropped else 0.0


def reduction(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """A function of all that is reduced."""
    name, out = node.input[0], node.output[0]
    attrs = attributes(node)
    shape = walk.shape(name)
    rank = len(shape)
    axes = attrs.get("axes")
    if node.op_type in ("ArgMax", "ArgMin"):
        axes = [attrs.get("axis", 0)]
    elif len(node.input) > 1 and node.input[1]:
        axes = walk.analysis.facts.values[node.input[1]].reshape(-1)
    if axes is None or len(axes) == 0:
        axes = [] if attrs.get("noop_with_empty_axes", 0) else list(range(rank))
    reduced = sorted({int(a) % rank for a in axes})
    ids = walk.ids[name]
    kept = [a for a, n in enumerate(ids.shape) if n > 1 and a not in reduced]
    ids = walk.project(ids, shape, kept)
    known = walk.values.constants(ids)
    keep = (~np.isnan(known) & (node.op_type in _OF_CONSTANT)) | (
        (known == 0) & (node.op_type in _OF_ZERO)
    )
    head = (walk.signature(node), tuple(reduced), walk.rest(name, kept, rank))
    new = walk.keyed(head, ids.reshape(-1, 1)).reshape(ids.shape)
    if node.op_type in _OF_CONSTANT:
        new = walk.values.within(new, *walk.values.ranges(ids))
    ids = np.where(keep, ids, new)
    if not attrs.get("keepdims", 1):
        ids = ids.reshape([n for a, n in enumerate(ids.shape) if a not in reduced])
    walk.put(out, ids)
