"""The tensors by which a model's outputs are judged, where some of them jump.

How many boxes NonMaxSuppression lets through depends on the data (`counting`), and a label of
ArgMax changes all at once: two such outputs cannot be subtracted, and say little of how far apart
the models are. The numbers that they are selected from can, and do.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from onnx_esn.errors import OnnxEsnError
from onnx_esn.graph.bodies import flattened
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.counting import counts, depending
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.inputs import data_inputs
from onnx_esn.graph.readers import reads_any
from onnx_esn.graph.two_sizes import two_sizes

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_LABELS = (TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)


def judged_tensors(model: onnx.ModelProto, *, labels: bool = True) -> list[str]:
    """The model's outputs, but in the place of one that jumps the float tensors it is made of.

    An output jumps if its shape depends on the values of the data, or if it is a label (integers of
    32 or 64 bits, booleans). It is replaced by the nearest tensors in front of it that do not. What
    is made of the inputs without any says nothing, and is left out where others do.

    Args:
        model: the model.
        labels: whether labels are replaced too; without, only what cannot be subtracted.
    """
    outputs = list(model.graph.output)
    by_values = _by_values(model)
    counted = _counted(model, by_values)
    jumping = {x.name for x in outputs if _varies(x, counted) or (labels and _is_label(x))}
    if not jumping:
        return [x.name for x in outputs]
    steady = (by_values & _float_tensors(model)) - counted - {x.name for x in model.graph.input}
    made = {name: node for node in model.graph.node for name in node.output if name}
    found: list[str] = []
    for output in outputs:
        near = [output.name]
        if output.name in jumping:
            near = _nearest(output.name, made, by_values, steady)
        found += [name for name in near if name not in found]
    return found or [x.name for x in outputs]


def _is_label(output: onnx.ValueInfoProto) -> bool:
    return output.type.tensor_type.elem_type in _LABELS


def _varies(output: onnx.ValueInfoProto, counted: set[str]) -> bool:
    """Whether its shape depends on values."""
    shape = output.type.tensor_type.shape
    return output.name in counted and not all(d.HasField("dim_value") for d in shape.dim)


def judged_beside(model: onnx.ModelProto, judged: list[str], *, labels: bool = True) -> list[str]:
    """What a model is judged by beside one that is judged by these tensors: the same, if it can."""
    made = {name for node in model.graph.node for name in node.output}
    return judged if set(judged) <= made else judged_tensors(model, labels=labels)


def _by_values(model: onnx.ModelProto) -> set[str]:
    """Tensors that depend on the values of the inputs; shapes do not."""
    return depending(model.graph.node, [x.name for x in data_inputs(model)])


def _counted(model: onnx.ModelProto, by_values: set[str]) -> set[str]:
    """Tensors that depend on how much is found in the values of the inputs."""
    found: set[str] = set()
    kept: set[str] | None = None
    for node in model.graph.node:
        given = {name for name in node.output if name}
        if reads_any(node, found):
            found |= given
        elif counts(node, by_values):
            if node.op_type == "Loop":
                kept = _kept_by_loops(model) if kept is None else kept
                given -= kept
            found |= given
    return found


def _kept_by_loops(model: onnx.ModelProto) -> set[str]:
    """What leaves the Loops in the shape it came in with, however often they run."""
    flat = flattened(model)
    try:
        shapes = two_sizes(flat, Constants(flat), None)[0].shapes
    except OnnxEsnError:
        return set()
    loops = [node for node in model.graph.node if node.op_type == "Loop"]
    return {name for node in loops for name in node.output if name in shapes}


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    try:
        types = two_sizes(model, Constants(model), None)[0].types
    except OnnxEsnError:
        return set()
    return {name for name, kind in types.items() if kind in _FLOATS}


def _nearest(
    output: str, made: dict[str, onnx.NodeProto], by_values: set[str], steady: set[str]
) -> list[str]:
    """The steady tensors that an output is made of, with nothing steady between."""
    found: list[str] = []
    todo, seen = [output], {output}
    while todo:
        node = made.get(todo.pop(0))
        for name in () if node is None else (*node.input, *captured(node)):
            if name in seen or name not in by_values:
                continue
            seen.add(name)
            if name in steady:
                found.append(name)
            else:
                todo.append(name)
    return found
