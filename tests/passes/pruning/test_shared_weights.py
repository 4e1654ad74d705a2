"""Layers that share a weight lose the same channels, and go on sharing it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_esn.passes.pruning.prune import Prune
from tests.oracles.equivalence import run

M, C = 12, 3
GROWING = np.arange(1, M + 1, dtype=np.float32)


def two_branches(*, transposed=False, exposed=False):
    """Two inputs through one Conv, each normalized by its own gains, then through one more Conv.

    Args:
        transposed: the second branch reads the weight through two Transpose nodes.
        exposed: all channels of the second branch are an output of the graph.
    """
    rng = np.random.default_rng(0)
    stored = {
        "w": rng.normal(size=(M, C, 3, 3)),
        "v": rng.normal(size=(4, M, 1, 1)),
        "gain_a": GROWING,
        "gain_b": GROWING[::-1],
        "beta": rng.normal(size=M),
        "zero": np.zeros(M),
        "one": np.ones(M),
    }
    nodes = []
    for x in "ab":
        weight = "w"
        if transposed and x == "b":
            perm = [1, 0, 2, 3]
            nodes.append(helper.make_node("Transpose", ["w"], ["t"], perm=perm))
            nodes.append(helper.make_node("Transpose", ["t"], ["tt"], perm=perm))
            weight = "tt"
        parameters = [f"gain_{x}", "beta", "zero", "one"]
        nodes += [
            helper.make_node("Conv", [x, weight], [f"{x}1"], name=f"first_{x}", pads=[1] * 4),
            helper.make_node("BatchNormalization", [f"{x}1", *parameters], [f"{x}2"]),
            helper.make_node("Relu", [f"{x}2"], [f"{x}3"]),
            helper.make_node("Conv", [f"{x}3", "v"], [f"{x}4"], name=f"second_{x}"),
        ]
    outputs = {"a4": 4, "b4": 4, **({"b3": M} if exposed else {})}
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", C, 8, 8]) for x in "ab"],
        [
            helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", n, 8, 8])
            for y, n in outputs.items()
        ],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def values(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def weights(model):
    return sorted(x.shape for x in values(model).values() if x.ndim > 1)


def outputs_of(model):
    rng = np.random.default_rng(1)
    feeds = {x: rng.normal(size=(2, C, 8, 8)).astype(np.float32) for x in "ab"}
    return run(model, feeds)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("criterion", ["bn-scale", "signal-norm"])
def test_the_weight_stays_one(transposed, criterion):
    model = two_branches(transposed=transposed)
    result = Prune(ratio=0.5, criterion=criterion, absorb="none")(model)
    assert weights(result.model) == [(4, M // 2, 1, 1), (M // 2, C, 3, 3)]

    (gone,) = {s.removed for s in result.plan.slices if s.tensor == "w"}
    masked = two_branches(transposed=transposed)
    for tensor in masked.graph.initializer:
        if tensor.name in ("gain_a", "gain_b", "beta"):
            value = numpy_helper.to_array(tensor).copy()
            value[list(gone)] = 0
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for y, expected in zip(outputs_of(result.model), outputs_of(masked), strict=True):
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_the_plan_replays_to_the_same_bytes():
    model = two_branches()
    result = Prune(ratio=0.5, criterion="bn-scale")(model)
    again = Prune(plan=result.plan)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_a_target_of_parameters_counts_what_is_stored():
    model = two_branches()
    before = sum(x.size for x in values(model).values() if x.ndim > 1)
    result = Prune(selection="qcqp", target_params="50%")(model)
    after = sum(x.size for x in values(result.model).values() if x.ndim > 1)
    assert after <= 0.5 * before


def test_what_stays_in_one_branch_keeps_nothing_in_the_other():
    result = Prune(ratio=0.5, criterion="bn-scale", absorb="none")(two_branches(exposed=True))
    half = M // 2
    assert weights(result.model) == [(4, half, 1, 1), (4, M, 1, 1), (half, C, 3, 3), (M, C, 3, 3)]
    notes = {s.node: s.reason for s in result.skipped if "stored 2 times" in s.reason}
    assert set(notes) == {"first_a", "second_a"}
    assert "'first_b'" in notes["first_a"]


def test_a_layer_that_is_left_out_keeps_the_weight_that_it_shares():
    result = Prune(ratio=0.5, criterion="bn-scale", exclude=["first_b"])(two_branches())
    assert not result.modified


def test_what_costs_nothing_goes_from_one_branch_alone():
    model = two_branches()
    for tensor in model.graph.initializer:
        if tensor.name == "gain_a":
            value = numpy_helper.to_array(tensor).copy()
            value[:2] = 0
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    result = Prune(exact=True)(model)
    assert [(g.name, g.width, g.kept) for g in result.plan.groups][:1] == [("first_a", M, M - 2)]
    assert result.details["filters_removed"] == 2
    for y, expected in zip(outputs_of(result.model), outputs_of(model), strict=True):
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    again = Prune(plan=result.plan)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()
