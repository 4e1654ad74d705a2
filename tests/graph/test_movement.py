"""Data movement on compact arrays is what the operator does on full ones."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.movement import MOVES, Move, MovementError, compact, move
from onnx_esn.graph.shapes import infer_facts
from tests.graph.random_graphs import random_model
from tests.oracles.equivalence import sizes_of


@pytest.mark.parametrize("block", range(6))
def test_moves_of_random_graphs(block):
    """Each movement node of random graphs, on an array that varies along some of its axes."""
    seen = set()
    for seed in range(40):
        model = random_model(random.Random(100 * block + seed))
        facts = infer_facts(model, sizes_of(model), Constants(model))
        for node in model.graph.node:
            known = {node.input[0], *node.output} <= facts.shapes.keys() if node.input else False
            if node.op_type in MOVES and known:
                check(node, facts, model, np.random.default_rng(seed))
                seen.add(node.op_type)
    assert len(seen) > 8


def check(node, facts, model, rng):
    shape = facts.shapes[node.input[0]]
    thin = [n if rng.random() < 0.5 else 1 for n in shape]
    x = rng.integers(1, 99, thin)
    params = [facts.values.get(i) if i else None for i in node.input]
    outs = [facts.shapes[o] for o in node.output]
    try:
        got = move(Move(node.op_type, attributes(node), params, shape, outs), x)
    except MovementError:
        assert node.op_type in (
            "DepthToSpace",
            "GatherND",
        )  # on what varies over more than they mix
        return
    full = np.broadcast_to(x, shape).copy()
    expected = reference(node, full, params, model)
    for a, b, out in zip(expected, got, outs, strict=True):
        assert a.shape == out
        assert all(n in (1, m) for n, m in zip(b.shape, out, strict=True))
        np.testing.assert_array_equal(a, np.broadcast_to(b, out))


def reference(node, x, params, model):
    if node.op_type == "Cast" or not node.input:
        return [x]
    names = [n for n in dict.fromkeys(node.input) if n]
    feeds = dict(zip(node.input, [x, *params[1:]], strict=True))
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, TensorProto.INT64, None) for n in names],
        [helper.make_tensor_value_info(o, TensorProto.INT64, None) for o in node.output],
    )
    one = helper.make_model(graph, opset_imports=model.opset_import)
    return ReferenceEvaluator(one).run(None, {n: feeds[n] for n in names})


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_compact_arrays_lose_nothing(shape, generator):
    thin = [n if generator.random() < 0.5 else 1 for n in shape]
    values = [generator.randrange(3) for _ in range(int(np.prod(thin)))]
    x = np.broadcast_to(np.array(values).reshape(thin), shape)
    small = compact(x)
    np.testing.assert_array_equal(np.broadcast_to(small, shape), x)
    for axis, n in enumerate(small.shape):
        assert n == 1 or not (small == small.take([0], axis)).all()


def test_an_index_out_of_range_is_refused():
    m = Move("Gather", {"axis": 1}, [None, np.array([3])], (2, 3), [(2, 1)])
    with pytest.raises(MovementError, match="out of range"):
        move(m, np.ones((1, 1), np.int64))


def test_what_is_not_known_is_refused():
    for op, attrs in (("Gather", {"axis": 1}), ("Slice", {}), ("Unsqueeze", {})):
        with pytest.raises(MovementError, match="at run time"):
            move(Move(op, attrs, [None, None, None], (2, 3), [(2, 1)]), np.arange(3).reshape(1, 3))


def test_every_rule_has_an_operator():
    assert all(onnx.defs.has(op) for op in MOVES)
