"""What a verb does on a graph of twice the nodes is about twice as much: calls are counted, not
time, which says nothing on a busy machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_esn
from onnx_esn.formats import weight_writing


def chain(layers: int) -> onnx.ModelProto:
    """Residual blocks of two channels: Conv, BatchNormalization, Relu, Add."""
    rng = np.random.default_rng(0)
    nodes, tensors, x = [], [], "x"
    for i in range(layers):
        W = rng.normal(size=(2, 2, 3, 3)).astype(np.float32)
        tensors.append(numpy_helper.from_array(W, f"w{i}"))
        for name, value in (("g", 1.0), ("b", 0.1), ("m", 0.2), ("v", 1.5)):
            tensors.append(numpy_helper.from_array(np.full(2, value, np.float32), f"{name}{i}"))
        nodes += [
            helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], f"conv{i}", pads=[1] * 4),
            helper.make_node(
                "BatchNormalization",
                [f"c{i}", *(f"{n}{i}" for n in "gbmv")],
                [f"n{i}"],
                f"norm{i}",
            ),
            helper.make_node("Relu", [f"n{i}"], [f"r{i}"], f"relu{i}"),
        ]
        if i:
            nodes.append(helper.make_node("Add", [x, f"r{i}"], [f"a{i}"], f"add{i}"))
        x = f"a{i}" if i else f"r{i}"
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "chain",
        [info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [info(x, TensorProto.FLOAT, [1, 2, 4, 4])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def calls(work: Callable[[], Any]) -> int:
    """How many functions, of Python or C, are called on the way."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


VERBS: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "inspect": onnx_esn.inspect,
    "annotate": onnx_esn.annotate,
    "prune": lambda model: onnx_esn.prune(model, ratio=0.5),
    "quantize": lambda model: onnx_esn.quantize(model, bits=4),
    "convert": lambda model: onnx_esn.convert(onnx_esn.quantize(model, bits=4).model, format="qdq"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_twice_the_nodes_are_twice_the_calls(verb: str) -> None:
    small, large = chain(40), chain(80)
    run = VERBS[verb]
    run(small)  # what is imported and cached on the way is not counted
    assert calls(lambda: run(large)) < 2.25 * calls(lambda: run(small))


def test_readers_are_looked_up_once_for_all_layers_that_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    readers = weight_writing.readers
    monkeypatch.setattr(weight_writing, "readers", lambda model: found.append(1) or readers(model))
    onnx_esn.quantize(chain(12), bits=4)
    assert len(found) == 1
