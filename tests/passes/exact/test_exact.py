"""Dead, unread and duplicate channels go without a trace; what only looks redundant stays."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_esn.errors import PlanError
from onnx_esn.passes.exact.redundant import RemoveRedundant
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.plans import PruningPlan, load_plan
from tests.graph.random_graphs import random_model
from tests.models import MODELS
from tests.net import Net
from tests.oracles.equivalence import (
    difference,
    in_type,
    sizes_of,
    tolerance,
    uses,
    with_batch,
)
from tests.passes.exact.planting import change, plant, silence, stored


def removed(result):
    d = result.details
    return tuple(d[f"filters_{kind}"] for kind in ("dead", "unread", "duplicate"))


def check(model, allowed=None, **limits):
    """Run the pass: valid, equal outputs, a plan that replays; (dead, unread, duplicate)."""
    before = model.SerializeToString()
    result = RemoveRedundant(**limits)(model)
    assert model.SerializeToString() == before
    assert sum(removed(result)) == result.details["filters_removed"]
    if not result.modified:
        assert result.model.SerializeToString() == before
        return result, removed(result)
    onnx.checker.check_model(result.model, full_check=True)
    for batch in (2, 3):
        sizes = {k: with_batch(model, k, v, batch) for k, v in sizes_of(model).items()}
        a, b = in_inference(model, result.model)
        # Sums of weights are rounded once more: two digits of bfloat16.
        most = allowed or (3e-2 if tolerance(a) == 1e-3 else tolerance(a))
        assert difference(a, b, sizes, batch) <= most
    again = Prune(plan=result.plan)(model)
    assert again.model.SerializeToString() == result.model.SerializeToString()
    return result, removed(result)


def in_inference(*models):
    """In float32 where doubles meet an old BatchNormalization.

    onnxruntime runs that in float32 only, and the reference of onnx moves its statistics.
    """
    ops = {n.op_type for m in models for n in m.graph.node}
    old = next(x.version for x in models[0].opset_import if x.domain == "") < 14
    if "BatchNormalization" in ops and old and uses(models[0], {onnx.TensorProto.DOUBLE}):
        return [in_type(m, {onnx.TensorProto.DOUBLE}, onnx.TensorProto.FLOAT) for m in models]
    return models


def twin(model, weight, source, target, axis=0):
    """Copy one filter of a stored weight onto another."""

    def edit(W):
        W = np.moveaxis(W, axis, 0)
        W[target] = W[source]
        return np.moveaxis(W, 0, axis)

    assert change(model, weight, edit)
    return model


def twin_all(model, node, source, target):
    """Copy a filter and its bias."""
    (it,) = [n for n in model.graph.node if n.name == node]
    for name in it.input[1:]:
        twin(model, name, source, target)
    return model


def mute(model, weight, slots, axis=1):
    """Zero the slices of a weight that read some channels."""
    return silence(model, weight, slots, axis)


def parameters(model):
    """Names of the parameters of the first BatchNormalization."""
    return next(n.input[1:] for n in model.graph.node if n.op_type == "BatchNormalization")


# Dead and constant channels.


def chain(between=lambda net, y: net.relu(y), *, pads=1, bias=True, second=True, seed=0):
    net = Net(3, 6, 6, seed=seed)
    y = between(net, net.conv("x", 3, 8, name="a", bias=bias))
    y = net.conv(y, 8, 5, name="b", bias=second, pads=[pads] * 4)
    return net.model(net.head(net.relu(y), 5))


@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("pads", [0, 1])
def test_a_zero_filter_without_bias_goes(pads, second):
    model = silence(chain(bias=False, pads=pads, second=second), "a.weight", [1, 5])
    assert check(model)[1] == (2, 0, 0)


@pytest.mark.parametrize("between", ["Sigmoid", "Tanh", "HardSigmoid", "Softplus", "Abs"])
def test_a_zero_filter_with_a_bias_is_a_constant(between):
    model = silence(chain(lambda net, y: net.op(between, y), pads=0), "a.weight", [1, 5])
    result, counts = check(model)
    assert counts == (2, 0, 0)
    assert [f.node for f in result.plan.folded_constants] == ["b"]


def test_a_constant_that_padding_meets_stays():
    model = silence(chain(lambda net, y: net.op("Sigmoid", y)), "a.weight", [1])
    result, counts = check(model)
    assert counts == (0, 0, 0)
    (note,) = result.skipped
    assert (note.node, note.reason) == (
        "b", "1 constant input channels stay: it pads them with zeros",
    )  # fmt: skip


def test_padding_does_no_harm_to_a_constant_that_relu_makes_zero():
    model = silence(chain(), "a.weight", [0, 1, 2, 3, 4, 5, 6, 7])
    (bias,) = [n.input[2] for n in model.graph.node if n.name == "a"]
    change(model, bias, lambda b: np.where(np.arange(8) % 2, -0.5, 0.5).astype(b.dtype))
    result, counts = check(model)
    # The others are equal constants: one of them stays for all.
    assert counts == (4, 0, 3)
    assert len(result.skipped) == 1


def test_padding_that_is_never_met():
    """A 3 × 3 kernel on one pixel meets it with its centre only."""
    net = Net(3, 6, 6)
    y = net.op("GlobalAveragePool", net.op("Sigmoid", net.conv("x", 3, 8, name="a")))
    model = net.model(net.conv(y, 8, 5))
    assert check(silence(model, "a.weight", [2]))[1] == (1, 0, 0)


def test_padding_at_a_size_that_may_change_is_not_trusted():
    """Whether the last tap of a strided kernel meets padding depends on the size."""
    for size, counts in ((7, (1, 0, 0)), (8, (0, 0, 0)), ("H", (0, 0, 0))):
        net = Net(3, size, size)
        y = net.op("Sigmoid", net.conv("x", 3, 8, name="a"))
        y = net.conv(y, 8, 5, 3, strides=[2, 2], pads=[0, 0, 1, 1], name="b")
        model = silence(net.model(net.head(y, 5)), "a.weight", [2])
        result = RemoveRedundant({"x": (2, 3, 7, 7)} if size == "H" else None)(model)
        assert removed(result) == counts, size


def test_gamma_of_zero():
    net = Net(3, 6, 6)
    y = net.bn(net.conv("x", 3, 8, bias=False, name="a"), 8)
    model = net.model(net.head(net.conv(net.op("Tanh", y), 8, 5, 1), 5))
    (bn,) = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    silence(model, bn.input[1], [1, 3])
    assert check(model)[1] == (2, 0, 0)


def test_death_spreads_along_a_chain():
    """Zero, Relu, a depthwise layer without bias, another filter that reads only dead channels."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, bias=False, name="a"))
    y = net.relu(net.conv(y, 8, 8, group=8, bias=False, name="d"))
    y = net.relu(net.conv(y, 8, 6, bias=False, name="b"))
    model = net.model(net.head(net.conv(y, 6, 4, name="c"), 4))
    silence(model, "a.weight", [1, 2, 3])

    def edit(W):  # filter 0 of b reads dead channels alone
        W[0, [0, 4, 5, 6, 7]] = 0
        return W

    change(model, "b.weight", edit)
    assert check(model)[1] == (7, 0, 0)


def test_a_residual_with_one_dead_branch_stays():
    net = Net(3, 6, 6)
    x = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.conv(x, 8, 8, bias=False, name="b")
    model = net.model(net.head(net.relu(net.op("Add", x, y)), 8))
    assert check(silence(model, "b.weight", [0, 1]))[1] == (0, 0, 0)
    silence(model, "a.weight", [1, 2])
    (bias,) = [n.input[2] for n in model.graph.node if n.name == "a"]
    silence(model, bias, [1, 2])
    assert check(model)[1] == (2, 0, 0)  # channel 1 of both


def test_a_squeeze_excite_gate_on_a_dead_channel():
    net = Net(3, 6, 6)
    x = net.relu(net.conv("x", 3, 8, bias=False, name="a"))
    y = net.relu(net.conv(net.op("GlobalAveragePool", x), 8, 4, 1))
    gate = net.op("Sigmoid", net.conv(y, 4, 8, 1))
    model = net.model(net.head(net.op("Mul", x, gate), 8))
    # Both the channel and its gate count.
    assert check(silence(model, "a.weight", [1]))[1] == (2, 0, 0)


def test_a_constant_in_a_product_with_data_stays():
    net = Net(3, 6, 6)
    x = net.op("Sigmoid", net.conv("x", 3, 8, name="a"))
    y = net.relu(net.conv("x", 3, 8, name="b"))
    model = net.model(net.head(net.op("Mul", x, y), 8))
    assert check(silence(model, "a.weight", [1]))[1] == (0, 0, 0)


def test_constants_in_a_concat():
    net = Net(3, 6, 6)
    x = net.relu(net.conv("x", 3, 6, bias=False, name="a"))
    y = net.op("Tanh", net.conv("x", 3, 4, name="b"))
    model = net.model(net.head(net.conv(net.op("Concat", x, y, axis=1), 10, 5, 1), 5))
    silence(silence(model, "a.weight", [0]), "b.weight", [3])
    assert check(model)[1] == (2, 0, 0)


def test_pooling_that_counts_its_padding():
    for include, counts in ((0, (1, 0, 0)), (1, (0, 0, 0))):
        net = Net(3, 6, 6)
        y = net.op("Sigmoid", net.conv("x", 3, 8, name="a"))
        y = net.op("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=include)
        model = net.model(net.conv(y, 8, 5, 1))
        assert check(silence(model, "a.weight", [2]))[1] == counts


def test_an_output_keeps_its_channels():
    net = Net(3, 6, 6)
    model = net.model(net.conv("x", 3, 8, bias=False, name="a"))
    assert check(silence(model, "a.weight", [1]))[1] == (0, 0, 0)


def test_one_channel_is_left_of_a_dead_layer():
    model = chain(bias=False)
    _, counts = check(silence(model, "a.weight", list(range(8))))
    assert counts == (7 + 4, 0, 0)  # and of the layer that reads them


def test_training_mode_normalises_by_the_data():
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 8, bias=False, name="a")
    y = net.conv(net.relu(net.bn(y, 8, training_mode=1)), 8, 5, 1)
    model = net.model(y, shapes={y: ("N", 5, 6, 6)})
    silence(model, parameters(model)[0], [3])
    assert not RemoveRedundant()(model).modified


# Unread channels.


def test_channels_that_nobody_reads():
    model = mute(chain(), "b.weight", [2, 3])
    assert check(model)[1] == (0, 2, 0)


def test_an_unread_filter_reads_nothing():
    """Filters of b that go leave channels of a unread."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.conv(y, 8, 6, name="b"))
    model = net.model(net.conv(y, 6, 4, name="c"))
    mute(model, "c.weight", [0, 1])

    def edit(W):
        W[2:, 5] = 0  # channel 5 of a goes to filters 0 and 1 only
        return W

    change(model, "b.weight", edit)
    assert check(model)[1] == (0, 3, 0)


def test_every_reader_counts():
    net = Net(3, 6, 6)
    x = net.relu(net.conv("x", 3, 8, name="a"))
    model = net.model(net.conv(x, 8, 4, name="b"), net.conv(x, 8, 4, name="c"))
    mute(model, "b.weight", [0, 1])
    assert check(model)[1] == (0, 0, 0)
    mute(model, "c.weight", [1, 2])
    assert check(model)[1] == (0, 1, 0)


def test_a_channel_may_be_unread_here_and_constant_there():
    net = Net(3, 6, 6)
    x = net.op("Sigmoid", net.conv("x", 3, 8, name="a"))
    model = net.model(net.conv(x, 8, 4, name="b"), net.conv(x, 8, 4, 1, name="c"))
    silence(model, "a.weight", [3])
    assert check(model)[1] == (0, 0, 0)  # padding at b
    mute(model, "b.weight", [3])
    assert check(model)[1] == (1, 0, 0)


def test_unread_by_integer_weights():
    net = Net(3, 6, 6, opset=17)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    codes = net.rng.integers(-100, 100, (5, 8, 3, 3)).astype(np.int8)
    codes[:, 2] = 0
    w = net.op("DequantizeLinear", net.store(codes, "b.codes"), net.store(np.array(0.01)))
    y = net.op("Conv", y, w, kernel_shape=[3, 3], pads=[1] * 4, name="b")
    model = twin_all(net.model(net.head(y, 5)), "a", 5, 6)
    result, counts = check(model)
    assert counts == (0, 1, 0)
    assert stored(result.model, "b.codes").data_type == onnx.TensorProto.INT8
    (note,) = result.skipped
    assert note.node == "b"
    assert note.reason.startswith("2 equal input channels stay: its weights are not stored as")


# Duplicates.


@pytest.mark.parametrize("pads", [0, 1])
def test_equal_filters(pads):
    model = twin_all(chain(pads=pads), "a", 1, 4)
    result, counts = check(model)
    assert counts == (0, 0, 1)
    (entry,) = result.plan.merged
    assert (entry.node, entry.axis, entry.into, entry.added) == ("b", 1, (1,), (4,))


def test_equal_weights_with_another_bias_are_not_equal():
    assert check(twin(chain(), "a.weight", 1, 4))[1] == (0, 0, 0)


def test_many_equal_filters_become_one():
    model = chain()
    for k in (1, 2, 3, 4):
        twin_all(model, "a", 0, k)
    assert check(model)[1] == (0, 0, 4)


def test_equal_filters_behind_a_normalisation_and_activations():
    for equal, counts in ((True, (0, 0, 1)), (False, (0, 0, 0))):
        net = Net(3, 6, 6)
        y = net.conv_bn_relu("x", 3, 8, name="a")
        y = net.op("PRelu", y, net.vector(8, 1, 1))
        model = twin(net.model(net.head(net.conv(y, 8, 5), 5)), "a.weight", 2, 6)
        params = parameters(model)
        slope = [n.input[1] for n in model.graph.node if n.op_type == "PRelu"]
        for name in [*params, *slope] if equal else params:
            twin(model, name, 2, 6)
        assert check(model)[1] == counts


@pytest.mark.parametrize("which", range(4))
def test_every_parameter_of_a_normalisation_counts(which):
    net = Net(3, 6, 6)
    y = net.conv_bn_relu("x", 3, 8, name="a")
    model = twin(net.model(net.head(net.conv(y, 8, 5), 5)), "a.weight", 2, 6)
    names = parameters(model)
    for name in (n for i, n in enumerate(names) if i != which):
        twin(model, name, 2, 6)
    assert check(model)[1] == (0, 0, 0)


def test_what_took_over_stays():
    """Of three equal channels, c ignores one, which takes over from another: so it stays."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    part = net.op("Slice", y, net.ints(4), net.ints(8), net.ints(1))
    model = net.model(net.conv(y, 8, 4, name="b"), net.conv(part, 4, 4, name="c"))
    for k in (4, 5):
        twin_all(model, "a", 3, k)
    mute(model, "c.weight", [0])
    assert check(model)[1] == (0, 0, 2)


def test_duplicates_make_duplicates():
    """Filters of b that differ only in how they share channels which are equal."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.conv(y, 8, 6, name="b"))
    model = twin_all(net.model(net.conv(y, 6, 4, name="c")), "a", 0, 1)
    twin_all(model, "b", 2, 3)

    def edit(W):
        W = np.round(W * 4096) / 4096
        W[3, 0], W[3, 1] = W[3, 0] + 0.5, W[3, 1] - 0.5
        return W.astype(np.float32)

    change(model, "b.weight", edit)
    assert check(model)[1] == (0, 0, 2)


def test_a_residual_stream_needs_both_branches_equal():
    net = Net(3, 6, 6)
    x = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.conv(x, 8, 8, name="b")
    model = net.model(net.head(net.conv(net.relu(net.op("Add", x, y)), 8, 4), 4))
    twin_all(model, "a", 0, 5)
    assert check(model)[1] == (0, 0, 0)
    twin_all(model, "b", 0, 5)
    assert check(model)[1] == (0, 0, 2)


def test_depthwise_filters():
    for equal, counts in ((False, (0, 0, 0)), (True, (0, 0, 2))):
        net = Net(3, 6, 6)
        y = net.relu(net.conv("x", 3, 8, name="a"))
        y = net.relu(net.conv(y, 8, 8, group=8, name="d"))
        model = twin_all(net.model(net.head(net.conv(y, 8, 5), 5)), "a", 1, 2)
        if equal:
            twin_all(model, "d", 1, 2)
        assert check(model)[1] == counts


def test_grouped_layers():
    """In a grouped Conv, input channels are added up within their group."""

    def build(pairs):
        net = Net(3, 6, 6)
        y = net.relu(net.conv("x", 3, 8, name="a"))
        y = net.conv(y, 8, 8, group=2, name="g")
        model = net.model(net.head(net.relu(y), 8))
        for source, target in pairs:
            twin_all(model, "a", source, target)
        return model

    assert check(build([(0, 4)]))[1] == (0, 0, 0)  # not in one group
    assert check(build([(0, 1)]))[1] == (0, 0, 0)  # slots hold a channel of each group
    assert check(build([(0, 1), (4, 5)]))[1] == (0, 0, 2)


def test_grouped_filters_read_their_own_group():
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.conv(y, 8, 8, group=2, name="g"))
    model = net.model(net.head(net.conv(y, 8, 4), 4))
    for k in range(4):
        twin_all(model, "g", k, 4 + k)
    assert check(model)[1] == (0, 0, 0)  # equal weights on other channels


def test_transposed_layers():
    net = Net(3, 5, 5)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.relu(net.deconv(y, 8, 6))
    model = net.model(net.conv(y, 6, 4))
    twin_all(model, "a", 1, 2)
    node = next(n for n in model.graph.node if n.op_type == "ConvTranspose")
    twin(model, node.input[1], 0, 3, axis=1)
    twin(model, node.input[2], 0, 3)
    assert check(model)[1] == (0, 0, 2)


def test_concat_of_duplicates():
    net = Net(3, 6, 6)
    x = net.relu(net.conv("x", 3, 4, name="a"))
    y = net.relu(net.conv("x", 3, 4, name="b"))
    model = net.model(net.head(net.conv(net.op("Concat", x, y, axis=1), 8, 5), 5))
    change(model, "b.weight", lambda W: numpy_helper.to_array(stored(model, "a.weight")).copy())
    bias = {n.name: n.input[2] for n in model.graph.node if n.op_type == "Conv"}
    change(model, bias["b"], lambda b: numpy_helper.to_array(stored(model, bias["a"])).copy())
    # Three go from one layer, which has to keep a channel, and its twin from the other.
    assert check(model)[1] == (0, 0, 4)


def test_channel_shuffle():
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.op("Transpose", net.reshape(y, 0, 2, 4, 6, 6), perm=[0, 2, 1, 3, 4])
    y = net.conv(net.reshape(y, 0, 8, 6, 6), 8, 5)
    model = twin_all(net.model(net.head(y, 5)), "a", 1, 2)
    assert check(model)[1] == (0, 0, 0)  # channels 2 and 6 go together or not at all
    assert check(twin_all(model, "a", 5, 6))[1] == (0, 0, 2)


def test_flattened_duplicates():
    net = Net(3, 4, 4)
    y = net.op("Flatten", net.relu(net.conv("x", 3, 8, name="a")))
    model = twin_all(net.model(net.gemm(y, 128, 5, alpha=0.5)), "a", 1, 6)
    result, counts = check(model)
    assert counts == (0, 0, 1)
    assert result.plan.merged[0].into == tuple(range(16, 32))


def test_what_a_slice_picks_is_not_what_it_leaves():
    """Every other row of one channel, the rows between of another."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 4, name="a"))
    parts = [net.op("Slice", y, net.ints(k), net.ints(6), net.ints(2), net.ints(2)) for k in (0, 1)]
    y = net.op("Concat", *parts, axis=1)
    model = net.model(net.conv(y, 8, 5))
    assert check(model)[1] == (0, 0, 0)
    twin_all(model, "a", 0, 3)
    assert check(model)[1] == (0, 0, 1)


def test_a_transposed_image_is_another_one():
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 4, name="a"))
    z = net.op("Transpose", y, perm=[0, 1, 3, 2])
    z = net.relu(net.bn(z, 4))
    y = net.relu(net.bn(y, 4))
    model = net.model(net.conv(net.op("Concat", y, z, axis=1), 8, 5))
    bns = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    for a, b in zip(bns[0].input[1:], bns[1].input[1:], strict=True):
        change(model, a, lambda v, b=b: numpy_helper.to_array(stored(model, b)).copy())
    assert check(model)[1] == (0, 0, 0)


def test_a_product_of_activations_keeps_both():
    model = MODELS["attention"].build()
    assert check(model)[1] == (0, 0, 0)
    assert not RemoveRedundant()(model).modified


def test_a_gather_that_picks_one_of_two():
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    y = net.op("Gather", y, net.ints(0, 2, 3, 4), axis=1)
    model = twin_all(net.model(net.head(net.conv(y, 4, 5), 5)), "a", 0, 1)
    # What is not picked is not read: 1 (the twin), 5, 6, 7.
    assert check(model)[1] == (0, 4, 0)


def test_two_layers_that_share_a_weight():
    """Both add up the same channels: they still share it. Otherwise each has its own."""
    for both, count in ((True, 1), (False, 2)):
        net = Net(3, 6, 6)
        x = net.relu(net.conv("x", 3, 8, name="a"))
        y = net.relu(net.conv("x", 3, 8, name="b"))
        w = net.weight(5, 8, 1, 1, fan_in=8, name="w")
        outs = [net.op("Conv", t, w, name=n, kernel_shape=[1, 1]) for t, n in ((x, "p"), (y, "q"))]
        model = twin_all(net.model(*outs), "a", 0, 1)
        if both:
            twin_all(model, "b", 0, 1)
        result, counts = check(model)
        assert counts == (0, 0, 2 if both else 1)
        readers = {n.input[1] for n in result.model.graph.node if n.name in "pq"}
        assert len(readers) == count


def test_weights_behind_other_nodes():
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 8, name="a"))
    w = net.op("Transpose", net.weight(8, 5, 1, 1, fan_in=8), perm=[1, 0, 2, 3])
    y = net.op("Conv", y, w, kernel_shape=[1, 1], name="b")
    result, counts = check(twin_all(net.model(net.head(y, 5)), "a", 0, 1))
    assert counts == (0, 0, 1)
    assert "Transpose" not in [n.op_type for n in result.model.graph.node]


def test_a_quantized_layer_keeps_its_codes():
    model = twin_all(chain(), "a", 0, 1)

    def edit(W):
        return (0.125 * (np.clip(np.floor(W / 0.125), -4, 3) + 0.5)).astype(W.dtype)

    change(model, "b.weight", edit)
    result, counts = check(model)
    assert counts == (0, 0, 0)
    assert "its weights are quantized" in result.skipped[0].reason


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(dtype):
    net = Net(3, 6, 6, dtype=dtype)
    y = net.op("Sigmoid", net.conv("x", 3, 8, name="a"))
    model = net.model(net.head(net.conv(y, 8, 5, 1), 5))
    twin_all(silence(model, "a.weight", [3]), "a", 0, 1)
    result, counts = check(model, None if dtype == np.float16 else 1e-12)
    assert counts == (1, 0, 1)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    assert {t.data_type for t in result.model.graph.initializer} == {kind}


def test_a_model_without_redundancy_comes_back_as_it_is():
    for name, case in MODELS.items():
        model = case.build()
        result = RemoveRedundant()(model)
        if not result.modified:
            assert result.model.SerializeToString() == model.SerializeToString(), name


# Plans.


def merged_plan(tmp_path):
    model = twin_all(chain(), "a", 1, 4)
    plan = RemoveRedundant()(model).plan
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json(), encoding="utf-8")
    assert load_plan(path, PruningPlan) == plan
    return model, plan


def test_an_edited_plan_that_keeps_a_merged_channel_is_refused(tmp_path):
    model, plan = merged_plan(tmp_path)
    with pytest.raises(PlanError, match=r"input channel 4 of 'b' is merged .* but stays"):
        Prune(plan=replace(plan, slices=()))(model)
    slices = tuple(replace(s, removed=(1, 4)) for s in plan.slices)
    with pytest.raises(PlanError, match=r"input channel 1 of 'b' is merged .* but is removed"):
        Prune(plan=replace(plan, slices=slices))(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node": "c"}, "no layer is called 'c'"),
        ({"node": "relu_1"}, "is no layer with weights"),
        ({"axis": 0}, "'b' reads no channels along axis 0"),
        ({"axis": 7}, "do not fit axis 7"),
        ({"into": ()}, "do not fit axis 1"),
        ({"into": (8,)}, "index 8 is outside axis 1 .* size 8"),
    ],
)
def test_entries_that_do_not_fit(tmp_path, change, message):
    model, plan = merged_plan(tmp_path)
    (entry,) = plan.merged
    if change.get("axis") == 0:
        change = {**change, "into": (0,), "added": (1,)}
    with pytest.raises(PlanError, match=message):
        Prune(plan=replace(plan, merged=(replace(entry, **change),)))(model)


# Random graphs.


def check_planted(seeds):
    found = 0
    for seed in seeds:
        model = plant(random_model(random.Random(seed)), np.random.default_rng(seed))
        found += check(model)[0].modified
    assert found > len(seeds) // 4


def test_planted_redundancy_in_random_graphs():
    check_planted(range(30))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(1, 21))
def test_planted_redundancy_in_many_random_graphs(block):
    check_planted(range(100 * block, 100 * block + 100))


@pytest.mark.parametrize("seed", range(12))
def test_all_that_is_planted_in_a_chain_is_found(seed):
    rng = np.random.default_rng(seed)
    net = Net(3, 6, 6, seed=seed)
    y, c, widths = "x", 3, rng.integers(8, 14, 4)
    for i, m in enumerate(widths.tolist()):
        y, c = net.relu(net.conv(y, c, m, bias=bool(rng.random() < 0.5), name=f"c{i}")), m
    model = net.model(net.head(y, c))
    planted = np.zeros(3, int)
    for i, m in enumerate(widths[:-1].tolist()):
        a, b, z, u = rng.choice(m, 4, replace=False)
        twin_all(model, f"c{i}", a, b)
        (node,) = [n for n in model.graph.node if n.name == f"c{i}"]
        for name in node.input[1:]:
            silence(model, name, [z])
        mute(model, f"c{i + 1}.weight", [u])
        planted += (1, 1, 1)
    _, counts = check(model)
    assert counts == tuple(planted)


# Channels that never leave one value, though their weights are not zero.


def relu6(net, y):
    return net.op("Clip", y, net.store(np.array(0.0)), net.store(np.array(6.0)))


def test_a_relu_that_never_opens():
    """Behind Relu6 all inputs are from 0 to 6: small weights cannot lift a negative bias."""
    for scale, counts in ((1e-3, (2, 0, 0)), (1.0, (0, 0, 0))):
        net = Net(3, 6, 6)
        y = relu6(net, net.conv("x", 3, 4, name="a"))
        y = relu6(net, net.bn(net.conv(y, 4, 8, name="b"), 8))
        model = net.model(net.conv(y, 8, 5, name="c"))

        def edit(W, scale=scale):
            W[[2, 5]] *= scale
            return W

        change(model, "b.weight", edit)
        bias = next(n.input[2] for n in model.graph.node if n.name == "b")
        change(model, bias, lambda b: np.where(np.isin(np.arange(8), [2, 5]), 0, b).astype(b.dtype))
        beta = parameters(model)[1]
        change(
            model, beta, lambda b: np.where(np.isin(np.arange(8), [2, 5]), -1, 1).astype(b.dtype)
        )
        assert check(model)[1] == counts


def test_negative_weights_on_positive_values():
    """No bound on the input is needed: Relu's are not negative."""
    net = Net(3, 6, 6)
    y = net.relu(net.conv("x", 3, 4, name="a"))
    y = net.relu(net.conv(y, 4, 8, name="b", bias=False))
    model = net.model(net.conv(y, 8, 5, name="c"))

    def edit(W):
        W[[2, 5]] = -np.abs(W[[2, 5]])
        return W

    assert check(change(model, "b.weight", edit) and model)[1] == (2, 0, 0)


def test_a_range_below_the_last_digit_is_a_constant():
    net = Net(3, 6, 6)
    y = net.op("Sigmoid", net.conv("x", 3, 4, name="a"))
    y = net.op("Sigmoid", net.conv(y, 4, 8, name="b"))
    model = net.model(net.conv(y, 8, 5, 1, name="c"))

    def edit(W):
        W[3] *= 1e-10
        return W

    assert check(change(model, "b.weight", edit) and model)[1] == (1, 0, 0)
