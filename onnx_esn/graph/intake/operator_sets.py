"""Versions of operator sets, and operators that no file may hold."""

from __future__ import annotations

from collections.abc import Set

import onnx

from onnx_esn.errors import ModelError
from onnx_esn.graph.bodies import BODY, DOMAIN
from onnx_esn.graph.intake.walk import all_graphs
from onnx_esn.graph.node_names import describe

_STANDARD = ("", "ai.onnx")
_LOWEST = 7  # what onnxruntime reads; before it, Add and Mul broadcast by other rules


def check_operator_sets(model: onnx.ModelProto, name: str) -> None:
    """Refuse operator sets that are missing, unknown or at odds, and this project's own marks.

    Raises:
        ModelError: naming the version, or the node.
    """
    found = [o.version for o in model.opset_import if o.domain in _STANDARD]
    most = onnx.defs.onnx_opset_version()
    if len(set(found)) > 1:
        raise ModelError(f"{name}: imports the standard operator set twice, as {found}")
    if found and found[0] < _LOWEST:
        raise ModelError(
            f"{name}: operator set {found[0]} is not supported, {_LOWEST} is the lowest; export "
            "the model at a higher one, or convert it with onnx.version_converter"
        )
    if found and found[0] > most:
        raise ModelError(
            f"{name}: operator set {found[0]} is not known, the installed onnx knows up to {most}; "
            "update onnx, or export the model at a lower one"
        )
    imported = {o.domain for o in model.opset_import}
    for graph, _ in all_graphs(model):
        for node in graph.node:
            _check_node(node, imported, name)
    for function in model.functions:
        own = {o.domain for o in function.opset_import}
        for node in function.node:
            _check_node(node, own, f"{name}: function {function.name!r}")


def _check_node(node: onnx.NodeProto, imported: Set[str], name: str) -> None:
    if node.domain == DOMAIN or any(e.key == BODY for e in node.metadata_props):
        raise ModelError(
            f"{name}: {describe(node)} bears a mark of {DOMAIN!r}, which only exists while a "
            "model is worked on; export the model again"
        )
    if not node.op_type:
        raise ModelError(f"{name}: the node {describe(node)} has no operator")
    if node.domain in _STANDARD:
        if not imported.isdisjoint(_STANDARD):
            return
        raise ModelError(
            f"{name}: imports no standard operator set, but has {describe(node)}; export the "
            "model again"
        )
    if node.domain not in imported:
        raise ModelError(
            f"{name}: {describe(node)} is of the domain {node.domain!r}, of which no operator set "
            "is imported; export the model again"
        )
