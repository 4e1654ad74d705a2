"""Reverse-mode differentiation of an ONNX graph, written as more nodes of that graph.

The runtime that runs the model then runs its gradients, with its own kernels and threads, and
nothing else has to be installed. Each operator has a rule: from the gradients of its outputs to
those of its inputs (vector-Jacobian product). Sizes are fixed while gradients are taken, so that
rules work with numbers, not with shape arithmetic.

Where an operator has no rule, no gradient goes through it; it is named, and what lies before it
learns nothing from what comes behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import is_standard
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.gradients.rules import RULES
from onnx_esn.graph.gradients.site import NoGradientError, Site
from onnx_esn.graph.gradients.tape import Tape
from onnx_esn.graph.hoisting import captured
from onnx_esn.graph.node_names import node_name
from onnx_esn.graph.readers import downstream

LEAST_OPSET = 18  # of graphs that are differentiated; `opset.raise_opset` brings others there


@dataclass(frozen=True)
class Backward:
    """What `append_backward` has added.

    Attributes:
        gradients: name of the gradient by wanted tensor; one that nothing depends on is missing.
        blocked: (node, reason) where no gradient could go through.
    """

    gradients: Mapping[str, str]
    blocked: tuple[tuple[str, str], ...]


def append_backward(
    model: onnx.ModelProto, facts: Facts, scalar: str, wanted: Sequence[str]
) -> Backward:
    """Append to a model the nodes that compute d scalar / d wanted.

    Args:
        model: at operator set 18 or above; nodes and constants are appended to it.
        facts: its shapes at the size that it will run at.
        scalar: a tensor of one element.
        wanted: tensors of float32 or float64, such as inputs that stand for weights.
    """
    graph = model.graph
    constants = Constants(model)
    active = downstream(graph.node, wanted)
    double = facts.types.get(scalar) == TensorProto.DOUBLE
    dtype = np.float64 if double else np.float32
    forward = list(graph.node)
    tape = Tape(graph, facts, dtype)
    seed = tape.constant(np.ones(facts.shapes[scalar], dtype))
    arrived: dict[str, list[str]] = {scalar: [seed]}
    blocked: list[tuple[str, str]] = []

    def total(name: str) -> str | None:
        parts = arrived.get(name)
        if not parts:
            return None
        if len(parts) > 1:
            arrived[name] = parts = [tape.add(parts)]
        return parts[0]

    for node in reversed(forward):
        grads = [total(name) if name else None for name in node.output]
        needs = [name in active for name in node.input]
        if not any(grads) or not (any(needs) or any(n in active for n in captured(node))):
            continue
        rule = RULES.get(node.op_type) if is_standard(node) else None
        try:
            if rule is None:
                raise NoGradientError(f"no gradient is known of {node.op_type}")
            found = rule(Site(tape, constants, node, grads, needs))
        except NoGradientError as error:
            blocked.append((node_name(node), str(error)))
            continue
        for name, need, gradient in zip(node.input, needs, found, strict=True):
            if need and gradient is not None:
                arrived.setdefault(name, []).append(gradient)
    gradients = {name: g for name in wanted if (g := total(name)) is not None}
    return Backward(gradients, tuple(blocked))
