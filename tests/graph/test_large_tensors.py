"""Large tensors are held once: stand-ins while a graph is rewritten, no steps kept on the way."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_esn.graph.channels.groups import analyse
from onnx_esn.graph.channels.labels import LabelSpace
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.rewrite.rewriting import rewrite
from onnx_esn.graph.rewrite.slicing import demands, slice_tensors
from onnx_esn.graph.stored import without_values
from tests.net import Net
from tests.oracles.equivalence import assert_sliced_is_masked, free_classes, legal_removal

WIDE = 128


def wide(**options) -> onnx.ModelProto:
    """Three convolutions; the weight between the wide ones stays large when half of it goes."""
    net = Net(3, 6, 6, **options)
    y = net.relu(net.conv("x", 3, WIDE, name="a"))
    y = net.relu(net.conv(y, WIDE, WIDE, name="b"))
    return net.model(net.conv(y, WIDE, 4, name="c"))


def in_constant_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """All stored tensors as Constant nodes, with a name of their own inside."""
    nodes = [
        helper.make_node("Constant", [], [t.name], f"{t.name}_node", value=t, doc_string="kept")
        for t in model.graph.initializer
    ]
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def shared() -> onnx.ModelProto:
    """Two branches of one large weight that lose different channels, a third that loses none."""
    net = Net(3, 6, 6)
    weight = net.weight(WIDE, WIDE, 3, 3, fan_in=9 * WIDE, name="w")
    outs = []
    for k in range(3):
        y = net.relu(net.conv("x", 3, WIDE, name=f"in{k}"))
        y = net.op("Conv", y, weight, kernel_shape=[3, 3], pads=[1] * 4, name=f"mid{k}")
        outs.append(net.conv(net.relu(y), WIDE, 4, name=f"out{k}"))
    return net.model(net.op("Concat", *outs, axis=1))


def halved(model: onnx.ModelProto, share: float = 0.5):
    analysis = analyse(model)
    rng = np.random.default_rng(0)
    wanted = rng.permutation(free_classes(analysis))
    wanted = wanted[: int(share * len(wanted))]
    return analysis, analysis.removed_labels(legal_removal(analysis, wanted))


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize(
    "build",
    [
        wide,
        lambda: wide(dtype=np.float16),
        lambda: in_constant_nodes(wide()),
        shared,
        lambda: in_constant_nodes(shared()),
        lambda: wide(ir=3),
    ],
    ids=["stored", "half", "constant nodes", "shared", "shared constants", "inputs"],
)
def test_sliced_is_masked(build, share):
    model = build()
    before = model.SerializeToString()
    analysis, removed = halved(model, share)
    assert removed.any()
    assert_sliced_is_masked(analysis, removed, rewrite(analysis, removed))
    assert model.SerializeToString() == before


def test_untouched_tensors_come_back_to_the_byte():
    model = in_constant_nodes(wide())
    analysis, removed = halved(model)
    last = analysis.first_labels[next(x.index for x in analysis.layers if x.name == "a")]
    removed[:] = False
    removed[last : last + 7] = True  # filters of a: c is not concerned
    new = rewrite(analysis, removed).model
    old = {n.output[0]: n for n in model.graph.node}
    assert next(n for n in new.graph.node if n.output[0] == "c.weight") == old["c.weight"]


def test_large_tensors_come_last():
    model = wide()
    analysis, removed = halved(model)
    copy = without_values(analysis.model)
    slicing = slice_tensors(analysis, copy, demands(analysis, removed))
    assert copy.ByteSize() < model.ByteSize() / 20
    slicing.filling.fill(copy)
    for tensor in copy.graph.initializer:
        assert numpy_helper.to_array(tensor).shape == tuple(tensor.dims)


def test_steps_towards_a_constant_are_dropped():
    net = Net(1024)
    y = net.store(np.ones((1024, 1024)), "w")
    for _ in range(6):
        y = net.op("Mul", y, net.store(np.array(0.5)))
        y = net.op("Transpose", y, perm=[1, 0])
    model = net.model(net.op("MatMul", "x", y))
    constants = Constants(model)
    tracemalloc.start()
    try:
        value = constants.value(y)
        now, peak = tracemalloc.get_traced_memory()
        assert peak < 5 * value.nbytes  # 12 steps
        assert now < 1.5 * value.nbytes
        assert constants.shape(y) == (1024, 1024)
        size = value.nbytes
        del value
        assert tracemalloc.get_traced_memory()[0] < size / 2  # the last step is only a view
    finally:
        tracemalloc.stop()


def test_many_pixels_say_the_same_once():
    space = LabelSpace()
    a, b = space.issue(8, 0), space.issue(8, 1)
    pixels = np.repeat(a, 10_000), np.repeat(b, 10_000)
    space.tie(*pixels, "tied")
    assert sum(x.size for edge in space._edges for x in edge) == 16
    of = space.classes().of
    assert (of[a] == of[b]).all()
    assert np.unique(of[a]).size == 8
