"""Evaluate one node on numpy arrays: the shape arithmetic of exporters, and constant folding.

The few operators that exporters use for shape arithmetic have a line of numpy each, because the
reference evaluator needs a third of a millisecond a node; everything else goes to
`onnx.reference`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_esn.graph.growth import EvaluationError as EvaluationError
from onnx_esn.graph.growth import check_growth
from onnx_esn.graph.intake.limits import GROWN_VALUES
from onnx_esn.graph.movement import slice_window
from onnx_esn.graph.quant_operators import evaluate_quant, is_quant

Array = NDArray[Any]
Inputs = Sequence[Array | None]

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def is_standard(node: onnx.NodeProto) -> bool:
    """Whether the node means what the ONNX operator of its name does.

    onnxruntime has a QuantizeLinear and a DequantizeLinear of its own: those of opset 21 (16 and
    4 bits, blocks) for models of an older one.
    """
    return node.domain in ("", "ai.onnx") or (
        node.domain == "com.microsoft" and node.op_type in QUANTIZERS
    )


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def evaluate_node(
    node: onnx.NodeProto, inputs: Inputs, opset: int, most: int = GROWN_VALUES
) -> list[Array]:
    """Run `node` on `inputs` (None for an input left out).

    Args:
        node: the node.
        inputs: its inputs.
        opset: version of the operator set.
        most: values of a result that may be larger than what it is made from.

    Raises:
        EvaluationError: the operator is unknown to the evaluator or refuses the inputs, or the
            result would be too large.
    """
    check_growth(node, inputs, opset, most)
    rule = _FAST.get(node.op_type) if is_standard(node) else None
    try:
        if is_quant(node):
            return [evaluate_quant(node.op_type, attributes(node), inputs)]
        if rule is not None:
            result = rule(attributes(node), inputs)
            if result is not None:
                return [np.asarray(result)]
        return _reference(node, inputs, opset)
    except EvaluationError:
        raise
    except Exception as error:  # whatever the evaluator trips over, the node stays unevaluated
        raise EvaluationError(f"{node.op_type}: {error}") from error


def _reference(node: onnx.NodeProto, inputs: Inputs, opset: int) -> list[Array]:
    names = [n for n, x in zip(node.input, inputs, strict=False) if n and x is not None]
    feeds = {n: x for n, x in zip(node.input, inputs, strict=False) if n and x is not None}
    graph = helper.make_graph(
        [node],
        "one_node",
        [onnx.ValueInfoProto(name=n) for n in dict.fromkeys(names)],
        [onnx.ValueInfoProto(name=o) for o in node.output if o],
    )
    if node.op_type in QUANTIZERS and is_standard(node):
        opset = max(opset, 21)  # the reference starts at 19; older versions are a subset
        graph.node[0].domain = ""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    from onnx.reference import ReferenceEvaluator  # only then: it takes long to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = ReferenceEvaluator(model).run(None, feeds)
    named = dict(zip([o for o in node.output if o], outputs, strict=True))
    if any(not isinstance(x, np.ndarray | np.generic) for x in named.values()):
        raise EvaluationError(f"{node.op_type}: does not compute tensors")
    return [np.asarray(named[o]) if o else np.empty(0) for o in node.output]


def _constant(attrs: dict[str, Any], _: Inputs) -> Array | None:
    ((key, value),) = attrs.items()
    if key == "value":
        return numpy_helper.to_array(value)
    if key in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    if key in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    return None


def _need(inputs: Inputs, index: int) -> Array:
    value = inputs[index]
    if value is None:
        raise EvaluationError(f"input {index} is missing")
    return value


def _axes(attrs: dict[str, Any], inputs: Inputs) -> tuple[int, ...] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(int(a) for a in inputs[1].reshape(-1))
    return tuple(attrs["axes"]) if "axes" in attrs else None


def _unsqueeze(attrs: dict[str, Any], inputs: Inputs) -> Array:
    axes = _axes(attrs, inputs)
    assert axes is not None
    return np.expand_dims(_need(inputs, 0), axes)


def _squeeze(attrs: dict[str, Any], inputs: Inputs) -> Array:
    return np.squeeze(_need(inputs, 0), _axes(attrs, inputs))


def _gather(attrs: dict[str, Any], inputs: Inputs) -> Array:
    return np.take(_need(inputs, 0), _need(inputs, 1).astype(np.int64), attrs.get("axis", 0))


def _cast(attrs: dict[str, Any], inputs: Inputs) -> Array:
    dtype = helper.tensor_dtype_to_np_dtype(attrs["to"])
    return _need(inputs, 0).astype(dtype)


def _div(_: dict[str, Any], inputs: Inputs) -> Array:
    a, b = _need(inputs, 0), _need(inputs, 1)
    if np.issubdtype(a.dtype, np.integer):  # ONNX divides integers towards zero
        return np.asarray(np.trunc(a / b), a.dtype)
    with np.errstate(all="ignore"):
        return np.asarray(a / b, a.dtype)


def _binary(f: Callable[..., Any]) -> Callable[[dict[str, Any], Inputs], Array]:
    def rule(_: dict[str, Any], inputs: Inputs) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(f(_need(inputs, 0), _need(inputs, 1)))

    return rule


def _unary(f: Callable[..., Any]) -> Callable[[dict[str, Any], Inputs], Array]:
    def rule(_: dict[str, Any], inputs: Inputs) -> Array:
        x = _need(inputs, 0)
        return np.asarray(f(x), x.dtype)

    return rule


def _special(name: str) -> Callable[[dict[str, Any], Inputs], Array]:
    """A function of `scipy.special`, which takes long to import, once it is asked for."""

    def rule(_: dict[str, Any], inputs: Inputs) -> Array:
        from scipy import special

        x = _need(inputs, 0)
        return np.asarray(getattr(special, name)(x), x.dtype)

    return rule


def _concat(attrs: dict[str, Any], inputs: Inputs) -> Array:
    return np.concatenate([_need(inputs, i) for i in range(len(inputs))], attrs["axis"])


def _constant_of_shape(attrs: dict[str, Any], inputs: Inputs) -> Array:
    value = numpy_helper.to_array(attrs["value"]) if "value" in attrs else np.zeros(1, np.float32)
    return np.full(tuple(_need(inputs, 0)), value.reshape(-1)[0], value.dtype)


def _slice(attrs: dict[str, Any], inputs: Inputs) -> Array:
    data = _need(inputs, 0)
    return np.asarray(data[slice_window(attrs, inputs, data.shape)])


def _batch_norm(attrs: dict[str, Any], inputs: Inputs) -> Array:
    """The first output, which the reference gets wrong at some opsets.

    In training mode onnxruntime goes by the given statistics, the standard by those of the data:
    evaluated where they are the same.
    """
    x, scale, bias, mean, var = (_need(inputs, i) for i in range(5))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    if attrs.get("training_mode", 0):
        axes = tuple(a for a in range(x.ndim) if a != 1)
        same = np.allclose(mean, x.mean(axes), 1e-3, 1e-5) and np.allclose(var, x.var(axes), 1e-3)
        if not same:
            raise EvaluationError("BatchNormalization: in training mode")
    gain = scale / np.sqrt(var.astype(np.float64) + attrs.get("epsilon", 1e-5))
    y = (x - mean.reshape(shape)) * gain.reshape(shape) + bias.reshape(shape)
    return np.asarray(y, x.dtype)


_FAST: dict[str, Callable[[dict[str, Any], Inputs], Array | None]] = {
    "Constant": _constant,
    "Identity": lambda _, x: _need(x, 0),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Gather": _gather,
    "Cast": _cast,
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _div,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Slice": _slice,
    "BatchNormalization": _batch_norm,
    "Transpose": lambda a, x: np.transpose(_need(x, 0), a.get("perm")),
    "Relu": lambda _, x: np.maximum(_need(x, 0), 0),
    "Sigmoid": _special("expit"),
    "Erf": _special("erf"),  # the reference calls math.erf number by number
}
