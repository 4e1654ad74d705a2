"""Types and shapes of what enters and leaves the bodies of If, Loop and Scan (see `bodies`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, TypeProto, helper

from onnx_esn.graph.bodies import ENTER, MERGE, number, origin, scanned
from onnx_esn.graph.evaluate import attributes

Types = Mapping[str, TypeProto]


def flow_types(
    node: onnx.NodeProto, types: Types, condition: NDArray[Any] | None
) -> dict[str, TypeProto]:
    """Types of a mark's outputs; without a shape where it may change from run to run.

    Args:
        node: the mark.
        types: types of what it reads.
        condition: of a `Merge`: its condition, where that is known.
    """
    if node.op_type == MERGE:
        count = len(node.output)
        one, other = node.input[1 : 1 + count], node.input[1 + count :]
        if condition is None:
            pairs = zip(one, other, strict=True)
            found = [_common(types.get(a), types.get(b)) for a, b in pairs]
        else:
            found = [types.get(name) for name in (one if bool(np.all(condition)) else other)]
    elif node.op_type == ENTER:
        found = _entered(node, types)
    else:
        found = _left(node, types)
    return {o: t for o, t in zip(node.output, found, strict=True) if o and t is not None}


def _entered(node: onnx.NodeProto, types: Types) -> list[TypeProto | None]:
    if number(node, "control"):
        turn = helper.make_tensor_type_proto(TensorProto.INT64, ())
        going = helper.make_tensor_type_proto(TensorProto.BOOL, ())
        return [turn, going, *(types.get(i) for i in node.input[2:])]
    carried = number(node, "carried")
    axes = attributes(origin(node)).get("scan_input_axes", [0] * len(node.input))
    slices = [
        _slice(types.get(name), axes[k] if k < len(axes) else 0)
        for k, name in enumerate(node.input[carried:])
    ]
    return [*(types.get(i) for i in node.input[:carried]), *slices]


def _left(node: onnx.NodeProto, types: Types) -> list[TypeProto | None]:
    carried, conditions = number(node, "carried"), number(node, "conditions")
    after = node.input[carried + conditions : 2 * carried + conditions]
    states = [
        _common(types.get(a), types.get(b))
        for a, b in zip(node.input[:carried], after, strict=True)
    ]
    return [*states, *_collected(node, types, node.input[2 * carried + conditions :])]


def _collected(node: onnx.NodeProto, types: Types, names: Sequence[str]) -> list[TypeProto | None]:
    """Stacks of what each turn made; how many turns a Loop takes is not followed."""
    attrs = attributes(origin(node))
    source = types.get(scanned(node) or "")
    if source is None or not source.tensor_type.HasField("shape"):
        return [_unshaped(types.get(name)) for name in names]
    dims = source.tensor_type.shape.dim
    turns = dims[attrs.get("scan_input_axes", [0])[0]].dim_value
    axes = attrs.get("scan_output_axes", [0] * len(names))
    return [_stacked(types.get(n), axis, turns) for n, axis in zip(names, axes, strict=True)]


def _stacked(a: TypeProto | None, axis: int, turns: int) -> TypeProto | None:
    """The type of `turns` tensors side by side along a new `axis`."""
    if a is None or not a.tensor_type.HasField("shape"):
        return _unshaped(a)
    dims = [d.dim_value for d in a.tensor_type.shape.dim]
    at = axis % (len(dims) + 1)
    return helper.make_tensor_type_proto(a.tensor_type.elem_type, [*dims[:at], turns, *dims[at:]])


def _unshaped(a: TypeProto | None) -> TypeProto | None:
    if a is None or not a.HasField("tensor_type"):
        return None
    return helper.make_tensor_type_proto(a.tensor_type.elem_type, None)


def _common(a: TypeProto | None, b: TypeProto | None) -> TypeProto | None:
    """The type of both; without a shape where theirs differ."""
    return a if a is not None and a == b else _unshaped(a or b)


def _slice(a: TypeProto | None, axis: int) -> TypeProto | None:
    """The type of a slice across `axis`."""
    if a is None or not a.tensor_type.HasField("shape"):
        return _unshaped(a)
    dims = [d.dim_value for d in a.tensor_type.shape.dim]
    del dims[axis]
    return helper.make_tensor_type_proto(a.tensor_type.elem_type, dims)
