"""The same model in standard operators only, as far as that is possible without loss.

Local functions are inlined, a branch whose condition is known is taken, and operators of
onnxruntime's own domain that only fuse standard ones are taken apart (onnxruntime fuses them again
when it loads the model).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper

from onnx_esn.errors import ModelError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.fused_operators import UNFUSE
from onnx_esn.graph.hoisting import Names, hoisted, renamed, subgraphs
from onnx_esn.graph.inputs import resized
from onnx_esn.graph.node_names import describe
from onnx_esn.graph.shapes import guessed_facts, infer_facts
from onnx_esn.graph.stored import add_initializer, without_nodes
from onnx_esn.graph.stored_weights import with_stored_weights
from onnx_esn.graph.unread import drop_unread, reads

log = logging.getLogger(__name__)

# Batches, and what to make of the usual size of other dynamic axes. A condition that is the same at
# all of these is taken to depend on none: small, odd and large ones are among them.
_SIZES: tuple[tuple[int, Callable[[int, int], int]], ...] = (
    (2, lambda n, axis: n),
    (1, lambda n, axis: n // 4),
    (3, lambda n, axis: 2 * n),
    (1, lambda n, axis: n + 1),
    (2, lambda n, axis: n // 3),
    (4, lambda n, axis: 20 * n + 3),
    (2, lambda n, axis: 1),
)


def standard_form(
    model: onnx.ModelProto, *, shapes: Mapping[str, Sequence[int]] | None = None
) -> onnx.ModelProto:
    """The model itself where nothing is to be done, otherwise an equivalent copy.

    Args:
        model: the model.
        shapes: input shapes for dynamic axes other than the batch.
    """
    source = model
    if model.functions:
        model = inliner.inline_local_functions(model)
    read = set(reads(model))
    if model.graph.sparse_initializer or any(_is_sparse(n) for n in model.graph.node):
        model = _dense(model)
    if any((n.domain, n.op_type) in UNFUSE for n in model.graph.node):
        model = _with_nodes(model, _unfused(model), owned=model is not source)
    while any(n.op_type == "If" for n in model.graph.node):
        taken = _known_branches(model, shapes)
        if not taken:
            break
        model = _without_branches(model, taken, owned=model is not source)
    model = with_stored_weights(model, owned=model is not source)
    if model is not source:
        drop_unread(model, read)
    return model


def _with_nodes(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], *, owned: bool
) -> onnx.ModelProto:
    """The model, or where it is not our own a copy, with other nodes."""
    if owned:
        del model.graph.node[:]
    else:
        model = without_nodes(model)
    model.graph.node.extend(nodes)
    return model


def _is_sparse(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and any(a.name == "sparse_value" for a in node.attribute)


def _dense(model: onnx.ModelProto) -> onnx.ModelProto:
    """Sparse constants written out: what is pruned is dense anyway."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if _is_sparse(node):
            value = _filled(node.attribute[0].sparse_tensor)
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("value", value))
    copy.graph.initializer.extend(_filled(sparse) for sparse in copy.graph.sparse_initializer)
    del copy.graph.sparse_initializer[:]
    return copy


def _filled(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    values, where = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if where.ndim == 2:
        dense[tuple(where.T)] = values
    else:  # positions in the flattened tensor
        dense.reshape(-1)[where] = values
    return numpy_helper.from_array(dense, sparse.values.name)


def _unfused(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    names, constants = Names(model.graph), Constants(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        rule = UNFUSE.get((node.domain, node.op_type))
        parts = rule(node, names, constants) if rule is not None else None
        nodes += parts or [node]
    return nodes


def _known_branches(
    model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None
) -> dict[int, bool]:
    """Index of each If whose condition is the same number at every size, and that number."""
    constants = Constants(model)
    branching = [i for i, node in enumerate(model.graph.node) if node.op_type == "If"]
    found: dict[int, set[bool]] = {i: set() for i in branching}
    start = guessed_facts(model, constants, batch=2, shapes=shapes)
    for batch, other in _SIZES:
        sizes = resized(model, start.sizes, partial(_always, batch), other)
        try:
            facts = start if sizes == start.sizes else infer_facts(model, sizes, constants)
        except ModelError:  # no model runs at every size
            continue
        for i in list(found):
            value = facts.values.get(model.graph.node[i].input[0])
            found[i] |= {True, False} if value is None else {bool(np.all(value))}
            if len(found[i]) > 1:
                del found[i]
        if not found:
            break
    return {i: values.pop() for i, values in found.items() if values}


def _always(size: int, now: int) -> int:
    return size


def _without_branches(
    model: onnx.ModelProto, taken: Mapping[int, bool], *, owned: bool
) -> onnx.ModelProto:
    """The model with each listed If replaced by the branch that is always taken."""
    names = Names(model.graph)
    for i, node in enumerate(model.graph.node):
        if i not in taken:
            names.reserve(node)
    nodes: list[onnx.NodeProto] = []
    stored: list[onnx.TensorProto] = []
    for i, node in enumerate(model.graph.node):
        if i in taken:
            log.info("%s always takes the same branch", describe(node))
            inner, tensors = _branch(node, taken[i], names)
            nodes, stored = nodes + inner, stored + tensors
        else:
            nodes.append(node)
    result = _with_nodes(model, nodes, owned=owned)
    for tensor in stored:
        add_initializer(result, tensor)
    return result


def _branch(
    node: onnx.NodeProto, condition: bool, names: Names
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and stored tensors of one branch, making the outputs of the If."""
    branch = subgraphs(node)["then_branch" if condition else "else_branch"]
    inner, tensors, mapping = hoisted(branch, names, {})
    made = {o for n in inner for o in n.output}
    direct: dict[str, str] = {}
    passed = []
    for outer, output in zip(node.output, branch.output, strict=True):
        name = mapping.get(output.name, output.name)
        if name in made and name not in direct:
            direct[name] = outer
        else:
            source = direct.get(name, name)
            passed.append(helper.make_node("Identity", [source], [outer], name=outer))
    return [
        *(renamed(n, lambda x, default: direct.get(x, default)) for n in inner),
        *passed,
    ], tensors
