"""What depends on a tensor."""

from __future__ import annotations

from onnx import helper

from onnx_esn.graph.readers import downstream, reads_any


def node(kind, inputs, outputs):
    return helper.make_node(kind, inputs, outputs)


def branching(reading):
    """An If whose branches read a tensor from outside."""
    branch = helper.make_graph([node("Relu", [reading], ["inside"])], "b", [], [])
    return helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)


def test_all_that_is_made_of_a_tensor():
    nodes = [node("Relu", ["x"], ["a"]), node("Relu", ["w"], ["b"]), node("Add", ["a", "b"], ["c"])]
    assert downstream(nodes, ["x"]) == {"x", "a", "c"}
    assert downstream(nodes, ["w"]) == {"w", "b", "c"}
    assert downstream(nodes, []) == set()


def test_subgraphs_read_too():
    assert downstream([branching("x")], ["x"]) == {"x", "y"}
    assert downstream([branching("z")], ["x"]) == {"x"}
    assert reads_any(branching("x"), {"x"})
    assert not reads_any(branching("z"), {"x"})


def test_nothing_counts_behind_some_operators():
    nodes = [node("Shape", ["x"], ["s"]), node("Reshape", ["w", "s"], ["y"])]
    assert downstream(nodes, ["x"], not_by=("Shape",)) == {"x"}
    assert downstream(nodes, ["x"]) == {"x", "s", "y"}


def test_outputs_without_a_name_are_none():
    assert downstream([node("Dropout", ["x"], ["y", ""])], ["x"]) == {"x", "y"}
