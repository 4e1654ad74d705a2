"""If, Loop and Scan: bodies that take and give what the node around them does."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnx_esn.errors import ModelError
from onnx_esn.graph.intake.walk import all_nodes
from onnx_esn.graph.node_names import describe

_BODIES = {"If": ("then_branch", "else_branch"), "Loop": ("body",), "Scan": ("body",)}


def check_control(model: onnx.ModelProto, name: str) -> None:
    """Refuse bodies that are missing, or whose values cannot be matched with the node's.

    Raises:
        ModelError: naming the node.
    """
    for node in all_nodes(model):
        wanted = _BODIES.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ()
        found = {a.name: a.g for a in node.attribute if a.HasField("g")}
        where = f"{name}: {describe(node)}"
        for body in wanted:
            if body not in found:
                raise ModelError(f"{where} has no {body}; export the model again")
        if wanted:
            _check_counts(node, found, where)


def _check_counts(node: onnx.NodeProto, found: Mapping[str, onnx.GraphProto], where: str) -> None:
    given, made = len(node.input), len(node.output)
    if node.op_type == "If":
        counts = {f"{key} gives": (len(g.output), made) for key, g in found.items()}
    elif node.op_type == "Loop":
        body = found["body"]
        counts = {
            "body takes": (len(body.input), max(given, 2)),
            "body gives": (len(body.output), made + 1),
        }
    else:
        body = found["body"]
        scanned = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), 0)
        if not 1 <= scanned <= given:
            raise ModelError(f"{where} scans {scanned} of its {given} inputs")
        taken = {given, given - 1}  # before operator set 9 the first one was no state
        want = len(body.input) if len(body.input) in taken else given
        counts = {
            "body takes": (len(body.input), want),
            "body gives": (len(body.output), made),
        }
    for what, (has, needs) in counts.items():
        if has != needs:
            raise ModelError(
                f"{where}: its {what} {has} values, but {needs} are needed; export the model again"
            )
