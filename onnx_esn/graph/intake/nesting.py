"""Bodies in bodies, and functions that call functions: how deep, and how many nodes in the end."""

from __future__ import annotations

from collections import Counter

import onnx

from onnx_esn.errors import ModelError
from onnx_esn.graph.intake.limits import CALLS, NESTING, NODES
from onnx_esn.graph.intake.walk import all_graphs, bodies

Key = tuple[str, str, str]


def check_nesting(model: onnx.ModelProto, name: str) -> None:
    """Refuse bodies that are nested deeper than `limits.NESTING`; raises `ModelError`."""
    for graph, depth in all_graphs(model):
        if depth > NESTING:
            raise ModelError(
                f"{name}: graphs are nested more than {NESTING} deep (in {graph.name!r}): no "
                "exporter does that; export the model again"
            )


def check_functions(model: onnx.ModelProto, name: str) -> None:
    """Refuse functions that call themselves, or grow without measure when they are inlined.

    Raises:
        ModelError: naming the function.
    """
    functions: dict[Key, onnx.FunctionProto] = {}
    for function in model.functions:
        key = (_domain(function.domain), function.name, function.overload)
        if key in functions:
            raise ModelError(f"{name}: the function {_text(key)} is there twice")
        functions[key] = function
    if not functions:
        return
    calls = {key: _calls(f.node, functions) for key, f in functions.items()}
    nodes: dict[Key, int] = {}
    depth: dict[Key, int] = {}
    for key in _callees_first(calls, name):
        called, own = calls[key]
        nodes[key] = own + sum(n * nodes[other] for other, n in called.items())
        depth[key] = 1 + max((depth[other] for other in called), default=0)
    called, own = _calls(model.graph.node, functions)
    total = own + sum(n * nodes[other] for other, n in called.items())
    if total > NODES:
        raise ModelError(
            f"{name}: with its functions written out it would have {total} nodes; "
            f"{NODES} is the most"
        )
    deepest = max(depth, key=lambda key: depth[key])
    if depth[deepest] > CALLS:
        raise ModelError(
            f"{name}: the function {_text(deepest)} calls others in a row of {depth[deepest]}; "
            f"{CALLS} is the most"
        )


def _callees_first(calls: dict[Key, tuple[Counter[Key], int]], name: str) -> list[Key]:
    """The functions in an order in which each comes after those that it calls."""
    order: list[Key] = []
    state: dict[Key, bool] = {}  # False: being looked at, True: done
    for start in calls:
        waiting = [(start, False)]
        while waiting:
            key, ready = waiting.pop()
            if ready:
                state[key] = True
                order.append(key)
            elif key not in state:
                state[key] = False
                waiting.append((key, True))
                for other in calls[key][0]:
                    if state.get(other) is False:
                        raise ModelError(
                            f"{name}: the function {_text(other)} calls itself, by way of "
                            f"{_text(key)}; no runtime can inline it"
                        )
                    waiting.append((other, False))
    return order


def _calls(nodes: object, functions: dict[Key, onnx.FunctionProto]) -> tuple[Counter[Key], int]:
    """How often each function is called, and the number of nodes that are no calls."""
    called: Counter[Key] = Counter()
    own = 0
    waiting: list[onnx.NodeProto] = [*nodes]  # type: ignore[misc]  # a protobuf list of nodes
    while waiting:
        node = waiting.pop()
        key = (_domain(node.domain), node.op_type, node.overload)
        if key in functions:
            called[key] += 1
        else:
            own += 1
        for body in bodies(node):
            waiting += body.node
    return called, own


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _text(key: Key) -> str:
    return repr(".".join(part for part in key[:2] if part))
