"""Weights with several uses: found, gathered in one stage, solved as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from onnx_esn.calibration.point_moments import Point
from onnx_esn.calibration.stage_graph import StageGraph
from onnx_esn.errors import OperationError
from onnx_esn.graph.parallel_nodes import parallel
from onnx_esn.numerics.cross_moments import cross_moments
from onnx_esn.passes.layerwise.solvers import Refit
from onnx_esn.passes.layerwise.statistics import LayerStatistics, WalkOptions
from onnx_esn.passes.layerwise.uses import pooled
from onnx_esn.passes.layerwise.walk import walk
from tests.passes.layerwise.samples import (
    layer_names,
    some_images,
    stored,
    with_a_head_on_three_levels,
    with_values,
)

FIRST, SECOND = ([f"{part}.{i}" for i in range(3)] for part in ("first", "second"))


def graph_of(reads: list[list[int]]) -> onnx.ModelProto:
    """A model whose node i reads the outputs of some nodes before it."""
    nodes = [
        helper.make_node("Sum", ["x", *(f"t{k}" for k in before)], [f"t{i}"])
        for i, before in enumerate(reads)
    ]
    return helper.make_model(helper.make_graph(nodes, "g", [], []))


def runs_together(reads: list[list[int]], sets: list[list[int]]) -> bool:
    """Whether all nodes get done when those of a set wait for what any of them reads."""
    unit = {i: i for i in range(len(reads))} | {i: min(s) for s in sets for i in s}
    waits: dict[int, set[int]] = {u: set() for u in unit.values()}
    for i, before in enumerate(reads):
        waits[unit[i]] |= {unit[k] for k in before}
    done: set[int] = set()
    while ready := {u for u, on in waits.items() if u not in done and on <= done}:
        done |= ready
    return len(done) == len(waits)


@st.composite
def graphs(draw: Any) -> tuple[list[list[int]], list[list[int]]]:
    n = draw(st.integers(2, 12))
    reads = [
        draw(st.lists(st.integers(0, i - 1), max_size=2, unique=True)) if i else []
        for i in range(n)
    ]
    order = draw(st.permutations(range(n)))
    sizes = draw(st.lists(st.integers(2, 3), max_size=3))
    sets, at = [], 0
    for size in sizes:
        if at + size <= n:
            sets.append(sorted(order[at : at + size]))
        at += size
    return reads, sets


@given(graphs())
def test_parallel_sets_can_be_run_together(drawn: tuple[list[list[int]], list[list[int]]]) -> None:
    reads, sets = drawn
    found = parallel(graph_of(reads), sets)
    assert runs_together(reads, [s for s, ok in zip(sets, found, strict=True) if ok])
    for one, ok in zip(sets, found, strict=True):
        assert ok or not runs_together(reads, sets)
        assert not ok or runs_together(reads, [one])


def test_branches_that_go_through_two_weights_in_opposite_order() -> None:
    reads: list[list[int]] = [[], [0], [], [2]]
    assert parallel(graph_of(reads), [[0, 3], [1, 2]]) == [False, False]
    assert parallel(graph_of(reads), [[0, 2], [1, 3]]) == [True, True]


def test_what_lies_between_the_turns_of_a_recurrence_waits_for_nobody() -> None:
    reads: list[list[int]] = [[], [0], [1], [2]]
    assert parallel(graph_of(reads), [[0, 2], [1], [3]]) == [False, True, True]


def test_uses_are_measured_in_one_stage() -> None:
    model = with_a_head_on_three_levels(0)
    nodes = {n.name: n for n in model.graph.node}
    points = [
        Point(name, nodes[name].input[0], 1, nodes[name].output[0]) for name in layer_names(model)
    ]
    together = [[nodes[name].output[0] for name in group] for group in (FIRST, SECOND)]
    alone, tied = (StageGraph(model, points, ["x"], t) for t in ((), together))
    stages = {p.name: (alone.stage_of(p), tied.stage_of(p)) for p in points}
    assert [stages[name] for name in FIRST] == [(1, 3), (2, 3), (3, 3)]
    assert [stages[name] for name in SECOND] == [(2, 4), (3, 4), (4, 4)]
    assert {stages[f"level.{i}"] for i in range(3)} == {(0, 0), (1, 1), (2, 2)}
    with pytest.raises(OperationError, match="wait for each other"):
        StageGraph(model, points, ["x"], [[nodes[n].output[0] for n in ("first.0", "second.0")]])


def test_pooled_moments_are_those_of_samples_about_the_mean_of_each_use() -> None:
    rng = np.random.default_rng(0)
    samples = [(rng.normal(i, 1 + i, (1, n, 4)), rng.normal(-i, 1, (1, n, 2))) for i, n in
               enumerate((50, 80))]  # fmt: skip
    halves = [
        (cross_moments(x[:, ::2], y[:, ::2]), cross_moments(x[:, 1::2], y[:, 1::2]))
        for x, y in samples
    ]
    variances = [y.var(axis=1) for _, y in samples]
    (a, b), variance = pooled(halves, variances)
    for k, found in enumerate((a, b)):
        parts = [(x[0, k::2], y[0, k::2]) for x, y in samples]
        x, y = (np.concatenate([p[j] - p[j].mean(axis=0) for p in parts]) for j in (0, 1))
        assert found.count == len(x)
        np.testing.assert_allclose(found.xx[0], x.T @ x, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(found.yx[0], y.T @ x, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(variance, (50 * variances[0] + 80 * variances[1]) / 130)


def test_a_spoilt_weight_comes_back_in_all_its_uses() -> None:
    reference = with_a_head_on_three_levels(0)
    rng = np.random.default_rng(1)
    spoilt = with_values(
        reference, lambda n, v: v + 0.3 * rng.normal(size=v.shape) if n == "head.0" else v
    )
    shown: list[str] = []

    def solver(statistics: LayerStatistics) -> Any:
        shown.append(statistics.layer.name)
        return Refit((1e-9,)).target(statistics)

    found, skipped = walk(
        spoilt,
        reference,
        some_images(reference, 40),
        solver,
        FIRST,
        WalkOptions(),
        together=[FIRST],
    )
    assert (shown, skipped) == (["first.0"], [])
    for name in FIRST:
        wanted = stored(reference, "head.0").reshape(found[name].W.shape)
        np.testing.assert_allclose(found[name].W, wanted, atol=1e-3)
        np.testing.assert_allclose(found[name].shift, 0, atol=1e-3)


def test_where_one_use_cannot_be_followed_none_is_solved() -> None:
    model = with_a_head_on_three_levels(0)
    node = next(n for n in model.graph.node if n.name == "first.1")
    reference = onnx.ModelProto()
    reference.CopyFrom(model)
    node.name = "another"  # the reference has no such layer
    group = ["first.0", "another", "first.2"]
    found, skipped = walk(
        model, reference, some_images(model), Refit(), [*group, "second.0"], together=[group]
    )
    assert set(found) == {"second.0"}
    reasons = {s.node: s.reason for s in skipped}
    assert reasons["another"] == "the reference has no such layer"
    assert "not all layers that share its weight" in reasons["first.0"]
    assert "not all layers that share its weight" in reasons["first.2"]
