"""Raise the operator set of a model.

Most operators read at operator set 25 what was written at 10: later versions only added types,
optional attributes and inputs. Nodes of these stay byte for byte; a few others need an attribute
moved. Only where neither will do, onnx's own converter takes over the whole graph; it drops
metadata, which is put back, and its result has to be checked by running it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from itertools import islice

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter

from onnx_esn.errors import OperationError
from onnx_esn.graph.constants import operator_sets
from onnx_esn.graph.hoisting import Names, subgraphs
from onnx_esn.graph.opset_changes import COMPATIBLE_SINCE, HIGHEST
from onnx_esn.graph.stored import without_stored

# onnxruntime 1.31 moves these about, and makes invalid ones of int8 at operator set 21.
_DOUBTFUL = {"DequantizeLinear", "QuantizeLinear"}


_INPUTS_AND_INITIALIZERS_APART = 4  # from this IR version on


class OpsetError(OperationError):
    """The operator set of a model cannot be raised."""


def raise_opset(model: onnx.ModelProto, opset: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a copy at a higher version of the default operator set; the IR version stays.

    Args:
        model: the model.
        opset: the version, above the model's own.

    Returns:
        The copy, and the operator types that onnx's converter had to translate or that runtimes
        stumble over; where there are any, the result should be compared with the model.

    Raises:
        OpsetError: nobody knows how.
    """
    before = operator_sets(model).get("", 1)
    if opset > HIGHEST or opset > onnx.defs.onnx_opset_version():
        most = min(HIGHEST, onnx.defs.onnx_opset_version())
        raise OpsetError(f"operator set {opset} is not supported; {most} is the highest")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    names = Names(model.graph)
    for node in model.graph.node:
        names.reserve(node)
    hard = {
        node.op_type
        for graph in _graphs(result.graph)
        for node in graph.node
        if node.domain in ("", "ai.onnx")
        and not _same(node, before, opset)
        and not _adapted(node, graph, names, before, opset)
    }
    seen = {node.op_type for graph in _graphs(model.graph) for node in graph.node}
    if hard:
        result = _converted(model, before, opset)
    for entry in result.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    if model.ir_version < _INPUTS_AND_INITIALIZERS_APART:
        _declare_stored(result, {t.name for g in _graphs(model.graph) for t in g.initializer})
    return result, tuple(sorted(hard | (seen & _DOUBTFUL)))


def _declare_stored(model: onnx.ModelProto, before: Container[str]) -> None:
    """Make graph inputs of new stored tensors, in place, as IR version 3 wants it.

    A body has no inputs to add, so that what it got goes to the main graph, whose names it reads.

    Args:
        model: the model.
        before: names of the stored tensors that are not new.
    """
    for graph in islice(_graphs(model.graph), 1, None):
        for i in reversed(range(len(graph.initializer))):
            if graph.initializer[i].name not in before:
                model.graph.initializer.append(graph.initializer[i])
                del graph.initializer[i]
    declared = {info.name for info in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in before and tensor.name not in declared:
            kind, shape = tensor.data_type, list(tensor.dims)
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, kind, shape))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for inner in subgraphs(node).values():
            yield from _graphs(inner)


def _since(op: str, opset: int) -> int:
    """The version of an operator at an operator set; 0 where it is unknown or gone."""
    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return 0
    return 0 if schema.deprecated else int(schema.since_version)


def _same(node: onnx.NodeProto, before: int, after: int) -> bool:
    old, new = _since(node.op_type, before), _since(node.op_type, after)
    if not old or not new:
        return False
    if old == new:
        return True
    if node.op_type == "BatchNormalization" and len(node.output) > 1:
        return False  # what the others are has changed
    return old >= COMPATIBLE_SINCE.get(node.op_type, HIGHEST)


def _adapted(
    node: onnx.NodeProto, graph: onnx.GraphProto, names: Names, before: int, after: int
) -> bool:
    """Rewrite a node in place, where that takes no more than moving an attribute."""
    rule = _RULES.get(node.op_type)
    return rule is not None and rule(node, graph, names, before, after)


def _moved(attribute: str, at: int, since: int) -> Callable[..., bool]:
    """A rule: from version `at` on, an attribute of integers is the second input."""

    def rule(
        node: onnx.NodeProto, graph: onnx.GraphProto, names: Names, before: int, after: int
    ) -> bool:
        if _since(node.op_type, before) < since or not _since(node.op_type, after):
            return False
        found = [a for a in node.attribute if a.name == attribute]
        if before < at <= after and found:
            if len(node.input) != 1:
                return False
            name = names.fresh(f"{node.output[0]}_{attribute}")
            values = np.array(found[0].ints, np.int64)
            graph.initializer.append(numpy_helper.from_array(values, name))
            node.input.append(name)
            node.attribute.remove(found[0])
        return True

    return rule


def _split(
    node: onnx.NodeProto, graph: onnx.GraphProto, names: Names, before: int, after: int
) -> bool:
    """Sizes became an input (13), and without sizes their number has to be said (18)."""
    if not _moved("split", 13, 2)(node, graph, names, before, after):
        return False
    sized = len(node.input) > 1 and node.input[1]
    if before < 18 <= after and not sized:
        node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))
    return True


def _dropout(
    node: onnx.NodeProto, graph: onnx.GraphProto, names: Names, before: int, after: int
) -> bool:
    """The ratio became an input (12), which says nothing outside of training."""
    if _since("Dropout", before) < 7:
        return False
    for attribute in [a for a in node.attribute if a.name == "ratio"]:
        node.attribute.remove(attribute)
    return True


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
_RULES: dict[str, Callable[..., bool]] = {
    "Dropout": _dropout,
    "ReduceSum": _moved("axes", 13, 1),
    "Split": _split,
    "Squeeze": _moved("axes", 13, 1),
    "Unsqueeze": _moved("axes", 13, 1),
    **{f"Reduce{name}": _moved("axes", 18, 1) for name in _REDUCTIONS},
}


def _converted(model: onnx.ModelProto, before: int, opset: int) -> onnx.ModelProto:
    """What onnx's converter makes of a model, with all that it drops."""
    try:
        converted = version_converter.convert_version(model, opset)
    except Exception as error:  # it raises whatever it trips over
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = re.sub(r"^\S+:\d+: ", "", lines[0])  # where in its own sources
        raise OpsetError(f"operator set {before} cannot be raised to {opset}: {reason}") from error
    result = without_stored(model, nodes=False)
    stored = {t.name: t for t in model.graph.initializer}
    for tensor in converted.graph.initializer:
        result.graph.initializer.append(stored.get(tensor.name, tensor))
    present = {t.name for t in converted.graph.initializer}
    result.graph.initializer.extend(t for t in stored.values() if t.name not in present)
    result.graph.node.extend(converted.graph.node)
    sources = {n.output[0]: n for n in model.graph.node if n.output}
    for node in result.graph.node:
        source = sources.get(node.output[0]) if node.output else None
        if source is not None and source.op_type == node.op_type:
            node.doc_string = source.doc_string
            del node.metadata_props[:]
            node.metadata_props.extend(source.metadata_props)
    return result
