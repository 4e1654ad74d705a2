"""What once went wrong and does not fit the registry of tiny graphs (tests/models*.py)."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnx_esn
from onnx_esn.graph.channels.groups import analyse
from tests.models import MODELS, stem
from tests.models_blocks import tail
from tests.models_files import external
from tests.net import Net, feeds_for
from tests.oracles.equivalence import (
    assert_sliced_is_masked,
    free_classes,
    relative_difference,
    rewrite_or_lock,
    run,
)
from tests.oracles.masked import masked_model


def test_a_sparse_initializer_loses_what_it_meets():
    """The checker knows no operator that takes one; onnxruntime does."""
    net = Net(3, 6, 6)
    model = tail(net, net.op("Add", stem(net), "s"))
    values = numpy_helper.from_array(np.array([1.0, 2.0, 3.0], np.float32), "s")
    at = numpy_helper.from_array(np.array([1, 4, 6]), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, at, [1, 8, 1, 1]))
    for step in (1, 2, 3):
        found = rewrite_or_lock(model, lambda a, k=step: free_classes(a)[::k])
        assert_sliced_is_masked(*found[:3])
    assert onnx_esn.prune(model, ratio=0.5).modified


@pytest.mark.parametrize("name", ["residual", "half_precision", "weight_through_dequantize"])
def test_tensors_beside_the_model(name, tmp_path):
    """External data: pruned as if it were inside."""
    model = MODELS[name].build()
    path = tmp_path / "model.onnx"
    external(model, path)
    inside = onnx_esn.prune(model, ratio=0.5).model
    beside = onnx_esn.prune(path, ratio=0.5).model
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    assert relative_difference(run(inside, feeds), run(beside, feeds)) == 0
    assert beside.ByteSize() < model.ByteSize()


@pytest.mark.parametrize(
    ("perm", "batch", "height", "width"),
    [
        ([1, 0, 2, 3], "N", 4, 4),
        ([2, 1, 0, 3], "N", 4, 4),
        ([1, 2, 0, 3], "N", 4, 4),
        ([3, 1, 0, 2], 2, 4, "W"),
        ([0, 2, 1, 3], 2, "H", 4),
        ([1, 3, 2, 0], 2, "H", 4),
    ],
)
def test_channels_before_a_dynamic_axis_are_scrambled(perm, batch, height, width):
    """Reshape(-1, k) of such a layout puts channels elsewhere at every size."""
    net = Net(3, height, width, batch=batch)
    y = net.op("Transpose", stem(net), perm=perm)
    sizes = [batch, 8, height, width]
    k = int(np.prod([sizes[p] for p in perm if not isinstance(sizes[p], str)]))
    y = net.gemm(net.reshape(y, -1, k), k, 3)
    model = net.model(y, shapes={y: ["K", 3]})
    symbols = [{"N": 2, "H": 6, "W": 6}, {"N": 3, "H": 7, "W": 5}, {"N": 5, "H": 4, "W": 8}]
    shapes = [{"x": tuple(s.get(d, d) for d in (batch, 3, height, width))} for s in symbols]
    for step in (1, 2, 3):
        found = rewrite_or_lock(model, lambda a, k=step: free_classes(a)[::k], shapes=shapes[0])
        analysis, removed, rewritten, _ = found
        assert_sliced_is_masked(analysis, removed, rewritten, sizes=shapes)


def test_no_second_size_fits():
    """Frames in the batch, four to a clip: a batch of 2 or 3 does not even run."""
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.op("ReduceMean", net.reshape(x, -1, 4, 8, 6, 6), axes=[1], keepdims=0)
    y = net.conv_bn_relu(net.reshape(y, -1, 8, 6, 6), 8, 6, name="b")
    model = net.model(net.head(y, 6), shapes={f"gemm_{len(net.nodes) + 2}_out": ["K", 3]})
    for given in (None, {"x": (4, 3, 6, 6)}):
        found = rewrite_or_lock(model, lambda a: free_classes(a)[::2], shapes=given)
        analysis, removed, rewritten, _ = found
        assert_sliced_is_masked(
            analysis, removed, rewritten, sizes=[{"x": (n, 3, 6, 6)} for n in (4, 8)]
        )
    onnx.checker.check_model(onnx_esn.prune(model, ratio=0.5).model, full_check=True)
    assert any(g.prunable for g in analyse(model, shapes={"x": (4, 3, 6, 6)}).groups)


@pytest.mark.parametrize("batch", ["N", 2])
def test_height_does_not_pass_for_width(batch):
    """A 0 in a Reshape target copies the axis at its own place: here that of the width."""
    net = Net(3, "H", "W", batch=batch)

    def size(x, axis):
        at = net.op("Gather", net.op("Shape", x), net.store(np.array(axis)))
        return net.op("Unsqueeze", at, net.ints(0))

    y = net.conv("x", 3, 8, 1, name="a")
    target = net.op("Concat", net.ints(-1, 8, 1), size(y, 2), size(y, 3), axis=0)
    z = net.op("Transpose", net.op("Reshape", y, target), perm=[0, 2, 1, 3, 4])
    target = net.op("Concat", size(z, 0), net.ints(-1), size(z, 3), size(z, 4), axis=0)
    model = net.model(net.conv(net.op("Reshape", z, target), 8, 2, 1))
    analysis, removed, rewritten, _ = rewrite_or_lock(model, lambda a: free_classes(a)[:2])
    assert removed.any()
    feeds = feeds_for(model, {"x": (2, 3, 8, 12)})
    masked = run(masked_model(analysis, removed), feeds)
    assert relative_difference(masked, run(rewritten.model, feeds)) < 1e-5


def counting(number, used_as):
    """A model in which `number(net, features)` counts channels, and pixels of a dynamic size."""
    net = Net(3, "H", "W")
    x = net.relu(net.conv("x", 3, 8, name="a"))
    n = net.op("Cast", number(net, x), to=1)
    y = net.op(used_as, net.conv(x, 8, 4), n)
    return net.model(net.op("ReduceMean", y, axes=[2, 3], keepdims=0))


NUMBERS = {
    "elements": lambda net, x: net.op("Size", x),
    "channels": lambda net, x: net.op("Gather", net.op("Shape", x), net.store(np.array(1))),
    "product": lambda net, x: net.op("ReduceProd", net.op("Shape", x), keepdims=0),
    "twice": lambda net, x: net.op("Add", net.op("Size", x), net.op("Size", x)),
}


@pytest.mark.parametrize("used_as", ["Mul", "Div", "Add"])
@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_keep_what_they_count(number, used_as):
    model = counting(NUMBERS[number], used_as)
    analysis, removed, rewritten, _ = rewrite_or_lock(model, lambda a: free_classes(a)[:3])
    assert removed.sum() == 3
    for size in ((2, 3, 8, 12), (1, 3, 20, 6)):
        feeds = feeds_for(model, {"x": size})
        masked = run(masked_model(analysis, removed), feeds)
        assert relative_difference(masked, run(rewritten.model, feeds)) < 1e-5


def test_numbers_that_are_no_multiple_lock_what_they_count():
    """C·H·W + C: no constant factor brings the old number back."""

    def mixed(net, x):
        channels = NUMBERS["channels"](net, x)
        return net.op("Add", NUMBERS["elements"](net, x), net.op("Mul", channels, channels))

    model = counting(mixed, "Div")
    _, removed, _, reasons = rewrite_or_lock(model, free_classes)
    assert not removed.any()
    assert "computed from a channel count and the input's size" in reasons[0]


@pytest.mark.parametrize("op", ["Shape", "Size"])
def test_counts_that_are_outputs_stay(op):
    net = Net(3, 6, 6)
    x = net.relu(net.conv("x", 3, 8, name="a"))
    counts = net.op(op, x)
    y = net.op("ReduceMean", net.conv(x, 8, 4, name="b"), axes=[2, 3], keepdims=0)
    y = net.gemm(y, 4, 2)
    model = net.model(y, counts, shapes={counts: [4] if op == "Shape" else []})
    for output in model.graph.output:
        if output.name == counts:
            output.type.tensor_type.elem_type = 7
    analysis, _, rewritten, reasons = rewrite_or_lock(model, free_classes)
    assert any("graph output" in r for r in reasons)
    assert {m.node for g in analysis.groups if g.prunable for m in g.members} == {"b"}
    feeds = feeds_for(model, {"x": (2, 3, 6, 6)})
    assert np.array_equal(run(model, feeds)[1], run(rewritten.model, feeds)[1])


@pytest.mark.parametrize("op", ["Min", "Max", "Less"])
def test_numbers_that_are_compared_lock_what_they_count(op):
    """A threshold between two sizes that nobody looked at."""

    def compared(net, x):
        limit = net.store(np.array(7000))
        y = net.op(op, NUMBERS["elements"](net, x), limit)
        return net.op("Add", net.op("Cast", y, to=7), net.store(np.array(1)))

    _, removed, _, reasons = rewrite_or_lock(counting(compared, "Mul"), free_classes)
    assert not removed.any()
    assert "is compared" in reasons[0]
