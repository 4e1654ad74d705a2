"""The one door to GraphSurgeon: structural edits that keep what its round trip would lose.

GraphSurgeon drops the metadata of model, graph and nodes, the nodes' doc strings and the
quantization annotations, and keeps `value_info` that no longer holds. `edit` puts the former back
and drops the latter.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_esn.errors import OperationError
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.stored import without_stored

_HEAVY = 1 << 12  # elements


@dataclass
class Edit:
    """A model under surgery.

    Attributes:
        graph: the GraphSurgeon graph; change it in place.
        model: the edited model, set when the `with` block ends.
    """

    graph: gs.Graph
    model: onnx.ModelProto

    def __post_init__(self) -> None:
        """Note the names in use and the maker of each tensor: both are asked for often."""
        self._names = set(self.graph.tensors())
        self._makers = {o.name: node for node in self.graph.nodes for o in node.outputs}

    def node(self, output: str) -> gs.Node:
        """The node that makes a tensor (its name is unique, unlike a node's)."""
        return self._makers[output]

    def unused(self, name: str) -> str:
        """`name`, or a variation of it that no tensor has; it counts as used from now on."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def constant(self, name: str, value: NDArray[np.generic]) -> gs.Constant:
        """A new constant under an unused name."""
        return gs.Constant(self.unused(name), np.ascontiguousarray(value))

    def insert_after(
        self, tensor: str, op: str, constants: list[gs.Constant], **attrs: object
    ) -> gs.Node:
        """Insert an operator between `tensor` and all its readers.

        The new node makes `tensor` (so that graph outputs and readers keep their names); what
        made it before makes `<tensor>_raw`.
        """
        producer = self.node(tensor)
        slot = next(i for i, o in enumerate(producer.outputs) if o.name == tensor)
        out = producer.outputs[slot]
        raw = gs.Variable(self.unused(f"{tensor}_raw"), dtype=out.dtype, shape=out.shape)
        producer.outputs[slot] = raw
        node = gs.Node(
            op=op,
            name=self.unused(f"{tensor}_{op}"),
            attrs=dict(attrs),
            inputs=[raw, *constants],
            outputs=[out],
        )
        self._makers[raw.name], self._makers[tensor] = producer, node
        at = next(i for i, n in enumerate(self.graph.nodes) if n is producer)
        self.graph.nodes.insert(at + 1, node)
        return node


@contextlib.contextmanager
def edit(model: onnx.ModelProto, *, owned: bool = False) -> Iterator[Edit]:
    """Import a model into GraphSurgeon, and export it when the block ends.

    The result is in `Edit.model`; the model passed in is untouched. IR version, operator sets,
    functions, metadata and doc strings are those of the source.

    Args:
        model: the model.
        owned: nobody else has it: it becomes the result, and its heavy tensors are not copied.

    Raises:
        OperationError: GraphSurgeon cannot carry the model.
    """
    source = _light(model)
    try:
        with _quiet():
            graph = gs.import_onnx(source)
    except Exception as error:  # GraphSurgeon raises whatever it trips over
        raise OperationError(f"GraphSurgeon cannot import the model: {error}") from error
    session = Edit(graph, model)
    with _quiet():
        yield session
    try:
        with _quiet():
            exported = gs.export_onnx(graph, do_type_check=False)
    except Exception as error:
        raise OperationError(f"GraphSurgeon cannot export the model: {error}") from error
    session.model = _restored(model, exported, owned)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """GraphSurgeon prints warnings about types that it carries all the same (bfloat16)."""
    logger = gs.logger.G_LOGGER
    severity, logger.severity = logger.severity, logger.ERROR
    try:
        yield
    finally:
        logger.severity = severity


def _is_heavy(tensor: onnx.TensorProto) -> bool:
    """Whether a stored tensor stays outside: no edit is about matrices."""
    return len(tensor.dims) > 1 and math.prod(tensor.dims) > _HEAVY


def _light(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose heavy tensors are stand-ins: each round trip would hold them several times."""
    copy = without_stored(model)
    for tensor in model.graph.initializer:
        if _is_heavy(tensor):
            empty = [0] * len(tensor.dims)
            copy.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=empty)
        else:
            copy.graph.initializer.append(tensor)
    return copy


def _restored(source: onnx.ModelProto, exported: onnx.ModelProto, owned: bool) -> onnx.ModelProto:
    nodes = list(source.graph.node)
    before = {t.name: t for t in source.graph.initializer}
    tensors = [
        before[t.name] if t.name in before and _is_heavy(before[t.name]) else t
        for t in exported.graph.initializer
    ]
    # GraphSurgeon exports only the tensors that the main graph reads itself.
    read = {name for node in nodes for name in node.input}
    inner = {name for node in nodes for name in captured(node)}
    present = {t.name for t in tensors}
    tensors += [
        t
        for t in before.values()
        if t.name not in present and (t.name in inner or t.name not in read)
    ]
    for tensor in tensors:
        old = before.get(tensor.name)
        if old is not None and tensor is not old:
            if old.HasField("doc_string"):
                tensor.doc_string = old.doc_string
            if not tensor.metadata_props:
                tensor.metadata_props.extend(old.metadata_props)
    if owned:
        model = source
        del model.graph.node[:]
        _store(model, before, tensors)
    else:
        model = without_stored(source, nodes=False)
        model.graph.initializer.extend(tensors)
    del model.graph.value_info[:]
    model.graph.node.extend(exported.graph.node)
    kept = {n.output[0]: n for n in nodes if n.output}
    by_name = {n.name: n for n in nodes if n.name}
    for node in model.graph.node:
        same = (kept.get(node.output[0]) if node.output else None) or by_name.get(node.name)
        if same is not None and same.op_type == node.op_type:
            _restore_node(same, node)
    # A default value that is gone must not turn its input into one that has to be fed.
    stored = {t.name for t in model.graph.initializer}
    for info in [i for i in model.graph.input if i.name in before.keys() - stored]:
        model.graph.input.remove(info)
    if source.ir_version < 4:
        _declare(model)
    return model


def _store(
    model: onnx.ModelProto,
    before: Mapping[str, onnx.TensorProto],
    tensors: Sequence[onnx.TensorProto],
) -> None:
    """Store these tensors in their order; what is stored `before` and among them stays in place."""
    place = {t.name: i for i, t in enumerate(tensors)}
    for tensor in tensors:
        old = before.get(tensor.name)
        if old is None:
            model.graph.initializer.append(tensor)
        elif old is not tensor:
            old.CopyFrom(tensor)
    for i in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[i].name not in place:
            del model.graph.initializer[i]
    model.graph.initializer.sort(key=lambda t: place[t.name])


def _restore_node(before: onnx.NodeProto, node: onnx.NodeProto) -> None:
    for name in ("doc_string", "overload"):
        node.ClearField(name)
        if before.HasField(name):
            setattr(node, name, getattr(before, name))
    del node.metadata_props[:]
    node.metadata_props.extend(before.metadata_props)
    # Attributes that were not edited come back exactly as they were, subgraphs included.
    if attributes(before).keys() == {a.name for a in node.attribute} and all(
        a.type in _PLAIN for a in before.attribute
    ):
        return
    same = {a.name: a for a in before.attribute if a.type not in _PLAIN}
    for attribute in node.attribute:
        if attribute.name in same:
            attribute.CopyFrom(same[attribute.name])


_PLAIN = {
    onnx.AttributeProto.INT, onnx.AttributeProto.INTS, onnx.AttributeProto.FLOAT,
    onnx.AttributeProto.FLOATS, onnx.AttributeProto.STRING, onnx.AttributeProto.STRINGS,
}  # fmt: skip


def _declare(model: onnx.ModelProto) -> None:
    """Below IR version 4 every initializer is a graph input as well."""
    declared = {i.name for i in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in declared:
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
