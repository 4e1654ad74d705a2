"""Components against a search from each node."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.numerics.components import components


def searched(n, edges):
    """The component of each node, numbered as they are met."""
    beside = [[] for _ in range(n)]
    for a, b in edges:
        beside[a].append(b)
        beside[b].append(a)
    found = [-1] * n
    number = 0
    for start in range(n):
        if found[start] >= 0:
            continue
        open_nodes = [start]
        while open_nodes:
            node = open_nodes.pop()
            if found[node] < 0:
                found[node] = number
                open_nodes += beside[node]
        number += 1
    return number, found


@given(st.integers(1, 30), st.data())
def test_components_are_those_that_a_search_finds(n, data):
    node = st.integers(0, n - 1)
    edges = data.draw(st.lists(st.tuples(node, node), max_size=40))
    ends = np.array(edges, np.int64).reshape(-1, 2)
    number, component = components(n, ends[:, 0], ends[:, 1])
    assert (number, component.tolist()) == searched(n, edges)


@pytest.mark.parametrize("order", ["up", "down", "shuffled"])
def test_a_long_path_takes_few_rounds(order, monkeypatch):
    n, rounds = 20_000, []
    a = np.arange(n - 1)
    a = {"up": a, "down": a[::-1], "shuffled": np.random.default_rng(0).permutation(a)}[order]
    names = np.random.default_rng(1).permutation(n) if order == "shuffled" else np.arange(n)
    unique = np.array_equal
    monkeypatch.setattr(np, "array_equal", lambda x, y: rounds.append(1) or unique(x, y))
    number, component = components(n, names[a], names[a + 1])
    assert number == 1
    assert not component.any()
    assert len(rounds) < 200
