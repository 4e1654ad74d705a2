"""How large the result of a node would be, asked before it is computed.

A constant Expand of three numbers can ask for more memory than there is. What has about the size
of what it is made from passes; what grows has a limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import defs, helper, numpy_helper, shape_inference

from onnx_esn.errors import ModelError
from onnx_esn.graph.intake.limits import GROWN_VALUES
from onnx_esn.graph.node_names import describe

Inputs = Sequence[NDArray[Any] | None]

# As large as their first input.
_KEEPING = {
    "BatchNormalization", "Cast", "Constant", "DequantizeLinear", "Erf", "Flatten", "Identity",
    "QuantizeLinear", "Relu", "Reshape", "Sigmoid", "Slice", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
_BROADCASTING = {"Add", "Sub", "Mul", "Div"}
# The reference evaluator computes these value by value in Python, or in loops of it.
_SLOW = {
    "AveragePool", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "GridSample", "LpPool",
    "MaxPool", "MaxUnpool", "NonMaxSuppression", "QLinearConv", "Resize", "RoiAlign", "Upsample",
}  # fmt: skip
_SLOW_VALUES = 1 << 20
_PRODUCTS = 1 << 34  # multiplications of one node
# Nobody stores a weight as the result of these: they decode files, match text, or run on and on.
_REFUSED = {
    "If", "ImageDecoder", "Loop", "RegexFullMatch", "Scan", "SequenceMap", "StringNormalizer",
    "StringSplit", "TfIdfVectorizer",
}  # fmt: skip
_INDEX = 8192  # values of an input that a shape may depend on


class EvaluationError(ModelError):
    """The node cannot be evaluated on these inputs; says so in a line where nobody handles it."""


def check_growth(
    node: onnx.NodeProto, inputs: Inputs, opset: int, most: int = GROWN_VALUES
) -> None:
    """Refuse to compute what would be far larger than what it is made from.

    Args:
        node: the node.
        inputs: its inputs, None for one that is left out.
        opset: version of the operator set.
        most: values of the result from which on it may not be larger than the largest input.

    Raises:
        EvaluationError: it would be, or would take hours; names the node.
    """
    if node.op_type in _REFUSED or any(x is not None and x.dtype.kind in "OSU" for x in inputs):
        raise EvaluationError(f"{describe(node)}: not computed ahead of a run")
    if node.op_type in _KEEPING:
        return
    largest = max((x.size for x in inputs if x is not None), default=0)
    size = _size(node, inputs, opset)
    slow = node.op_type in _SLOW
    if size > max(largest, most) or (slow and size > _SLOW_VALUES):
        raise EvaluationError(
            f"{describe(node)}: a constant of {size} values, computed from {largest}, is too large "
            "to be worked on; store it, or make it smaller"
        )
    if products(node, inputs, size) > _PRODUCTS:
        raise EvaluationError(f"{describe(node)}: takes too long to be computed ahead of a run")


def products(node: onnx.NodeProto, inputs: Inputs, size: int) -> int:
    """Multiplications of a product of tensors whose result has `size` values; 0 for other nodes."""
    given = [x for x in inputs if x is not None]
    if node.op_type in ("MatMul", "Gemm") and len(given) > 1:
        return math.isqrt(size * given[0].size * given[1].size)  # mn · mk · kn = (mkn)²
    if node.op_type == "Einsum":
        return math.prod(max(1, d) for x in given for d in x.shape)
    return size * given[1].size if node.op_type in _SLOW and len(given) > 1 else 0


def _size(node: onnx.NodeProto, inputs: Inputs, opset: int) -> int:
    """Values of the result."""
    given = [x for x in inputs if x is not None]
    if node.op_type in _BROADCASTING:
        try:
            return math.prod(np.broadcast_shapes(*(x.shape for x in given)))
        except ValueError as error:
            raise EvaluationError(f"{describe(node)}: {error}") from error
    if node.op_type == "Concat":
        return sum(x.size for x in given)
    if node.op_type == "ConstantOfShape" and given:
        sizes = [int(n) for n in given[0].reshape(-1)]
        if min(sizes, default=0) < 0:
            raise EvaluationError(f"{describe(node)}: the shape {sizes[:8]} is negative")
        return math.prod(sizes)
    if node.op_type == "Gather" and len(given) == 2 and given[0].ndim:
        axis = int(next((a.i for a in node.attribute if a.name == "axis"), 0))
        if -given[0].ndim <= axis < given[0].ndim:
            rest: int = given[0].size // max(1, given[0].shape[axis])
            return rest * given[1].size
    return _inferred(node, inputs, opset)


def _inferred(node: onnx.NodeProto, inputs: Inputs, opset: int) -> int:
    """Values of the results by onnx's shape inference; of a shape that it does not know: 0."""
    if not defs.has(node.op_type, opset, ""):
        return 0
    named = {n: x for n, x in zip(node.input, inputs, strict=False) if n and x is not None}
    types = {
        n: helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for n, x in named.items()
    }
    data = {
        n: numpy_helper.from_array(np.array(x, order="C"), n)
        for n, x in named.items()
        if x.size <= _INDEX
    }
    try:
        found = shape_inference.infer_node_outputs(
            defs.get_schema(node.op_type, opset, ""), node, types, data, ir_version=8
        )
    except (shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError):
        return _by_hand(node, inputs)
    sizes = []
    for proto in found.values():
        shape = proto.tensor_type.shape
        if not proto.tensor_type.HasField("shape") or any(
            not d.HasField("dim_value") for d in shape.dim
        ):
            return _by_hand(node, inputs)
        sizes.append(math.prod(d.dim_value for d in shape.dim))
    return max(sizes, default=0)


def _by_hand(node: onnx.NodeProto, inputs: Inputs) -> int:
    """An upper bound where shape inference gave up: of what counts by its values."""
    x = inputs[0] if inputs else None
    numbers = [v for v in inputs[1:] if v is not None and v.dtype.kind in "iu" and v.size <= _INDEX]
    if node.op_type in ("Expand", "Tile", "OneHot", "MaxUnpool", "Resize", "Upsample", "Pad"):
        factor = math.prod(max(1, abs(int(n))) for v in numbers for n in v.reshape(-1))
        return factor * (x.size if x is not None else 1)
    if node.op_type == "Range" and len(inputs) == 3 and all(v is not None for v in inputs):
        start, limit, delta = (float(v.reshape(-1)[0]) for v in inputs if v is not None)
        return math.ceil(max(0.0, (limit - start) / delta)) if delta else 0
    if node.op_type in (
        "BlackmanWindow",
        "HammingWindow",
        "HannWindow",
        "MelWeightMatrix",
        "Col2Im",
    ):
        return math.prod(max(1, abs(int(n))) for v in inputs if v is not None for n in v.flat)
    return 0
