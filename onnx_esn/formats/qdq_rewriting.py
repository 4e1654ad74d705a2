"""Put chosen forms in the place of stored weights, at another operator set where they need it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import onnx
from onnx import helper

from onnx_esn.formats.agreement import outputs_agree
from onnx_esn.formats.qdq_types import Form
from onnx_esn.graph.constants import operator_sets
from onnx_esn.graph.node_names import node_name
from onnx_esn.graph.opset import OpsetError, raise_opset
from onnx_esn.graph.readers import readers
from onnx_esn.graph.stored import add_initializer, without_stored

_INPUTS_AND_INITIALIZERS_APART = 4  # from this IR version on


def rewritten(
    model: onnx.ModelProto,
    forms: Mapping[str, Form],
    shared: Sequence[onnx.TensorProto],
    opset: int,
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a new model with forms for stored weights, and notes on what else was done.

    Args:
        model: the model.
        forms: by name of the stored weight, whose name the form's last node takes over.
        shared: constants that forms may read; only those that are read get in.
        opset: operator set of the result.

    Raises:
        OpsetError: the operator set cannot be raised without changing what the model computes.
    """
    before = operator_sets(model).get("", 1)
    result = _without(model, forms)
    notes: list[str] = []
    converted: tuple[str, ...] = ()
    if opset > before:
        result, converted = _raised(model, result, forms, opset)
        notes.append(_note(before, opset, forms))
    types = max((form.container.ir_version for form in forms.values()), default=0)
    if types > result.ir_version:
        notes.append(f"IR version raised from {model.ir_version} to {types} for the types stored")
        _raise_ir(result, types)
    _insert(result, forms)
    read = {name for form in forms.values() for node in form.nodes for name in node.input}
    for tensor in chain((t for t in shared if t.name in read), _tensors(forms)):
        add_initializer(result, tensor)  # one at a time is made
    if converted and not outputs_agree(model, result):
        raise OpsetError(
            f"operator set {before} cannot be raised to {opset}: onnxruntime does not compute the "
            f"same outputs (because of {', '.join(converted)})"
        )
    return result, tuple(notes)


def _tensors(forms: Mapping[str, Form]) -> Iterator[onnx.TensorProto]:
    return (tensor for form in forms.values() for tensor in form.tensors())


def _without(model: onnx.ModelProto, names: Mapping[str, Form]) -> onnx.ModelProto:
    """A copy that lacks stored tensors of these names, Constant nodes and inputs included."""
    result = without_stored(model, nodes=False)
    result.graph.initializer.extend(t for t in model.graph.initializer if t.name not in names)
    result.graph.node.extend(
        node for node in model.graph.node if not names.keys() & set(node.output)
    )
    for i in reversed(range(len(result.graph.input))):
        if result.graph.input[i].name in names:
            del result.graph.input[i]
    return result


def _raised(
    model: onnx.ModelProto, light: onnx.ModelProto, forms: Mapping[str, Form], opset: int
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Raise the operator set of the rest, for which the weights are inputs in the meantime."""
    types = {t.name: t.data_type for t in model.graph.initializer}
    for name, form in forms.items():
        kind, shape = form.made
        assert types.get(name, kind) == kind
        light.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    result, converted = raise_opset(light, opset)
    for i in reversed(range(len(result.graph.input))):
        if result.graph.input[i].name in forms:
            del result.graph.input[i]
    return result, converted


def _note(before: int, after: int, forms: Mapping[str, Form]) -> str:
    widest = sorted({f.container.name for f in forms.values() if f.container.opset > before})
    what = f" for {' and '.join(widest)}" if widest else ""
    return f"operator set raised from {before} to {after}{what}"


def _raise_ir(model: onnx.ModelProto, version: int) -> None:
    if model.ir_version < _INPUTS_AND_INITIALIZERS_APART <= version:
        # They had to be inputs too; left there, runtimes take them for defaults that may change.
        stored = {t.name for t in model.graph.initializer}
        for i in reversed(range(len(model.graph.input))):
            if model.graph.input[i].name in stored:
                del model.graph.input[i]
    model.ir_version = version


def _insert(model: onnx.ModelProto, forms: Mapping[str, Form]) -> None:
    """Put the nodes of each form before the first node that reads the weight."""
    users = readers(model)
    taken = {node_name(node) for node in model.graph.node}
    before: dict[int, list[onnx.NodeProto]] = {}
    end = len(model.graph.node)
    for name, form in forms.items():
        first = min((i for i in users.get(name, ()) if i >= 0), default=end)
        before.setdefault(first, []).extend(_named(node, taken) for node in form.nodes)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for i in range(end + 1):
        model.graph.node.extend(before.get(i, ()))
        model.graph.node.extend(nodes[i : i + 1])


def _named(node: onnx.NodeProto, taken: set[str]) -> onnx.NodeProto:
    """A node without a name goes by that of its output: where a node has it, it needs one."""
    name = node.output[0]
    if name in taken:
        while name in taken:
            name += "_stored"
        node.name = name
    taken.add(name)
    return node
