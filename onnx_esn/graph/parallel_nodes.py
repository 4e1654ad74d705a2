"""Sets of nodes that can be run at the same time: none of a set waits for another of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnx_esn.graph.hoisting import captured


def parallel(model: onnx.ModelProto, sets: Sequence[Sequence[int]]) -> list[bool]:
    """For each set of node indices, whether the graph with all sets drawn together can be run.

    A recurrence that was laid open cannot: each turn waits for the one before. Nor can two sets
    that two branches go through in opposite order. Sets on such a circle are not parallel; a set of
    one node always is.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    nodes = model.graph.node
    at = np.arange(len(nodes))
    for members in sets:
        at[list(members)] = min(members)
    made = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    edges = [
        (at[made[name]], at[i])
        for i, node in enumerate(nodes)
        for name in (*node.input, *captured(node))
        if name in made
    ]
    if not edges:
        return [True] * len(sets)
    rows, columns = np.array(edges).T
    shape = len(nodes), len(nodes)
    graph = csr_array((np.ones(len(edges), np.int8), (rows, columns)), shape=shape)
    _, of = connected_components(graph, directed=True, connection="strong")
    size = np.bincount(of[np.unique(at)], minlength=of.max() + 1)
    straight = {int(a) for a, b in edges if a == b}  # one reads what another makes
    return [len(x) == 1 or (size[of[min(x)]] == 1 and int(min(x)) not in straight) for x in sets]
