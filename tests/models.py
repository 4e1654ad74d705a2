"""Tiny graphs, one for each way in which exporters lay out channels.

Each function builds one model. `@graph` says what pruning has to make of it: whether some group
can be pruned, and for what reason another one (or the only one) cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from tests.net import Net


@dataclass(frozen=True)
class Case:
    """A tiny graph and what is expected of it.

    Attributes:
        build: makes the model.
        prunable: names of layers of which some filters must be removable.
        locked: part of a reason that must be given for some channel, or "".
        stays: names of layers that must keep all their filters.
        open: what is still missing to reach `prunable`, or "": the expectation must fail then.
    """

    build: Callable[[], onnx.ModelProto]
    prunable: tuple[str, ...]
    locked: str
    stays: tuple[str, ...] = ()
    open: str = ""


MODELS: dict[str, Case] = {}


def graph(*prunable, locked="", stays=(), open=""):
    def register(build):
        assert build.__name__ not in MODELS
        MODELS[build.__name__] = Case(build, prunable, locked, tuple(stays), open)
        return build

    return register


def stem(net, channels=8):
    """The first layer of nearly every graph here: three channels in, `channels` out."""
    return net.conv_bn_relu("x", 3, channels, name="a")


# Chains and residual streams.


@graph("a", "b")
def chain():
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 8, name="a")
    y = net.conv(net.relu(y), 8, 6, name="b")
    return net.model(net.head(net.relu(y), 6))


@graph("a", "b")
def chain_with_batchnorm():
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net), 8, 6, name="b")
    return net.model(net.head(y, 6))


@graph("a", "b", "c")
def residual():
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.bn(net.conv(net.conv_bn_relu(x, 8, 6, name="b"), 6, 8, name="c"), 8)
    return net.model(net.head(net.relu(net.op("Add", x, y)), 8))


@graph("a", "b", "p")
def residual_with_projection():
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.bn(net.conv(net.conv_bn_relu(x, 8, 6, name="b", strides=[2, 2]), 6, 10, name="c"), 10)
    p = net.bn(net.conv(x, 8, 10, 1, name="p", strides=[2, 2]), 10)
    return net.model(net.head(net.relu(net.op("Add", p, y)), 10))


@graph("a", "b")
def pre_activation():
    net = Net(3, 6, 6)
    x = net.conv("x", 3, 8, name="a")
    for name in ("b", "c"):
        y = net.conv(net.relu(net.bn(x, 8)), 8, 6, name=name)
        y = net.conv(net.relu(net.bn(y, 6)), 6, 8)
        x = net.op("Add", x, y)
    return net.model(net.head(net.relu(net.bn(x, 8)), 8))


@graph("a", locked="combined in Add 'add_3' with 'x', which carries no channels")
def residual_onto_the_input():
    net = Net(3, 6, 6)
    y = net.conv(net.relu(net.conv("x", 3, 8, name="a")), 8, 3, name="b")
    return net.model(net.head(net.op("Add", "x", y), 3))


@graph("a")
def inception():
    net = Net(3, 6, 6)
    x = stem(net)
    branches = [net.conv_bn_relu(x, 8, 4, 1), net.conv_bn_relu(x, 8, 6), net.op("MaxPool", x,
        kernel_shape=[3, 3], pads=[1] * 4)]  # fmt: skip
    return net.model(net.head(net.op("Concat", *branches, axis=1), 18))


@graph("a", "b")
def dense_net():
    net = Net(3, 6, 6)
    x, width = stem(net), 8
    for name in ("b", "c", "d"):
        y = net.conv(net.relu(net.bn(x, width)), width, 4, name=name)
        x, width = net.op("Concat", x, y, axis=1), width + 4
    return net.model(net.head(net.relu(net.bn(x, width)), width))


# Grouped and depthwise layers.


@graph("a", "d")
def depthwise():
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net), 8, 8, group=8, name="d")
    return net.model(net.head(net.conv_bn_relu(y, 8, 6, 1), 6))


@graph("a", "d")
def depthwise_multiplier_two():
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net), 8, 16, group=8, name="d")
    return net.model(net.head(net.conv_bn_relu(y, 16, 6, 1), 6))


@graph("a", "g")
def grouped_in_two():
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net, 12), 12, 8, group=2, name="g")
    return net.model(net.head(y, 8))


@graph("a", "g")
def grouped_in_many():
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net, 16), 16, 16, group=8, name="g")
    return net.model(net.head(y, 16))


def _shuffle_net(shuffle):
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net), 8, 8, 1, group=2, name="b")
    y = net.conv_bn_relu(shuffle(net, y), 8, 8, group=8)
    return net.model(net.head(net.conv_bn_relu(y, 8, 6, 1, group=2, name="c"), 6))


@graph("a", "b", "c")
def channel_shuffle():
    def shuffle(net, y):
        y = net.op("Transpose", net.reshape(y, -1, 2, 4, 6, 6), perm=[0, 2, 1, 3, 4])
        return net.reshape(y, -1, 8, 6, 6)

    return _shuffle_net(shuffle)


@graph("a", "b", "c")
def channel_shuffle_computed():
    """As traced: every size of both targets computed from Shape."""

    def shuffle(net, y):
        n, c, h, w = (net.size(y, axis) for axis in range(4))
        per_group = net.op("Div", c, net.ints(2))
        y = net.reshape_computed(y, n, 2, per_group, h, w)
        return net.reshape_computed(net.op("Transpose", y, perm=[0, 2, 1, 3, 4]), n, -1, h, w)

    return _shuffle_net(shuffle)


# Splits.


def _ghost(net, x):
    return net.model(net.head(net.conv_bn_relu(x, 8, 6, 1), 6))


@graph("a")
def split_in_half():
    net = Net(3, 6, 6)
    u, v = net.op("Split", stem(net), net.ints(4, 4), outputs=2, axis=1)
    return _ghost(net, net.op("Concat", net.conv_bn_relu(u, 4, 4), v, axis=1))


@graph("a")
def split_unevenly_at_opset_11():
    net = Net(3, 6, 6, opset=11)
    u, v = net.op("Split", stem(net), outputs=2, axis=1, split=[3, 5])
    return _ghost(net, net.op("Concat", v, u, axis=1))


@graph("a")
def sliced_in_half():
    net = Net(3, 6, 6)
    y = stem(net)
    u = net.op("Slice", y, net.ints(0), net.ints(4), net.ints(1))
    v = net.op("Slice", y, net.ints(4), net.ints(2**62), net.ints(1))
    return _ghost(net, net.op("Concat", net.conv_bn_relu(u, 4, 4), v, axis=1))


@graph("a")
def chunked_in_half():
    """Chunk, as traced: Shape → Gather → Div → Slice."""
    net = Net(3, 6, 6)
    y = stem(net)
    whole = net.size(y, 1)
    half = net.op("Div", net.op("Add", whole, net.ints(1)), net.ints(2))
    u = net.op("Slice", y, net.ints(0), half, net.ints(1))
    v = net.op("Slice", y, half, net.op("Mul", half, net.ints(2)), net.ints(1))
    return _ghost(net, net.op("Concat", net.conv_bn_relu(u, 4, 4), v, axis=1))


@graph("a")
def every_other_channel_backwards():
    net = Net(3, 6, 6)
    y = net.op("Slice", stem(net, 9), net.ints(-1), net.ints(-10), net.ints(1), net.ints(-2))
    return net.model(net.head(net.conv_bn_relu(y, 5, 6, 1), 6))


@graph("a", "b")
def gated_linear_unit():
    net = Net(3, 6, 6)
    u, v = net.op("Split", net.conv(stem(net), 8, 12, name="b"), outputs=2, axis=1)
    return net.model(net.head(net.op("Mul", u, net.op("Sigmoid", v)), 6))


@graph("a", "b")
def maxout():
    net = Net(3, 6, 6)
    u, v = net.op("Split", net.conv(stem(net), 8, 12, name="b"), outputs=2, axis=1)
    return net.model(net.head(net.op("Max", u, v), 6))


@graph("a", locked="left alone by Gather")
def one_channel_taken_out():
    """A 0-d Gather: the other channels may go, the index moves."""
    net = Net(3, 6, 6)
    y = stem(net)
    one = net.op("Gather", y, net.store(np.array(5, np.int64)), axis=1)
    gate = net.op("Sigmoid", net.op("Unsqueeze", one, net.ints(1)))
    return _ghost(net, net.op("Mul", y, gate))


@graph("a")
def gathered_in_a_table():
    net = Net(3, 6, 6)
    table = net.store(np.arange(8).reshape(4, 2).T.copy())
    y = net.op("Gather", stem(net), table, axis=1)
    return _ghost(net, net.reshape(y, 0, -1, 6, 6))


@graph("a", "b", locked="joined in Concat")
def joined_with_the_input_and_split_again():
    net = Net(3, 6, 6)
    y = net.op("Concat", stem(net), "x", axis=1)
    tail = net.op("Slice", y, net.ints(6), net.ints(11), net.ints(1))
    return net.model(net.head(net.conv_bn_relu(tail, 5, 6, name="b"), 6))


# From features to classes.


def _classifier(flatten, **options):
    net = Net(3, 4, 4, **options)
    return net.model(net.gemm(flatten(net, stem(net)), 128, 5, name="fc"))


@graph("a")
def flatten():
    return _classifier(lambda net, y: net.op("Flatten", y))


@graph("a")
def flatten_by_reshape():
    return _classifier(lambda net, y: net.reshape(y, -1, 128))


@graph("a")
def flatten_by_reshape_with_zero():
    return _classifier(lambda net, y: net.reshape(y, 0, -1))


@graph("a")
def flatten_by_computed_reshape():
    return _classifier(lambda net, y: net.reshape_computed(y, net.size(y, 0), -1))


@graph("a")
def flatten_by_fully_computed_reshape():
    def flat(net, y):
        n, c, h, w = (net.size(y, axis) for axis in range(4))
        return net.reshape_computed(y, n, net.op("Mul", c, net.op("Mul", h, w)))

    return _classifier(flat)


@graph("a")
def flatten_of_a_fixed_batch():
    return _classifier(lambda net, y: net.reshape(y, 3, 128), batch=3)


@graph("a", "fc")
def gemm_chain():
    net = Net(3, 4, 4)
    y = net.gemm(net.op("Flatten", stem(net)), 128, 12, name="fc", alpha=0.5, beta=2.0)
    return net.model(net.gemm(net.relu(y), 12, 5))


def _gemm_form(trans_a, trans_b, left):
    """Gemm with its weight on either side, transposed or not; features are columns on the right."""
    net = Net(3, 4, 4, batch=1 if trans_a or left else "N")
    y = net.op("Flatten", stem(net))  # (N, 128)
    for c, m, name in ((128, 10, "b"), (10, 5, "c")):
        if left:
            w = net.weight(*((c, m) if trans_a else (m, c)), fan_in=c)
            y = y if trans_b else net.op("Transpose", y)
            inputs = [w, y, net.vector(m, 1)]
        else:
            w = net.weight(*((m, c) if trans_b else (c, m)), fan_in=c)
            y = net.op("Transpose", y) if trans_a else y
            inputs = [y, w, net.vector(m)]
        y = net.op("Gemm", *inputs, transA=int(trans_a), transB=int(trans_b), name=name, alpha=0.5)
        y = net.op("Transpose", y) if left else y
    return net.model(y, shapes={y: [1 if trans_a or left else "N", 5]})


for _a in (False, True):
    for _b in (False, True):
        for _left in (False, True):
            _name = (
                f"gemm_{'t' if _a else 'n'}{'t' if _b else 'n'}{'_weight_left' if _left else ''}"
            )
            MODELS[_name] = Case(
                lambda a=_a, b=_b, left=_left: _gemm_form(a, b, left), ("a", "b"), ""
            )


@graph("a", "b")
def matmul_and_add():
    net = Net(3, 4, 4)
    y = net.op("MatMul", net.op("Flatten", stem(net)), net.weight(128, 9, fan_in=128), name="b")
    y = net.relu(net.op("Add", y, net.vector(9)))
    return net.model(net.linear(y, 9, 5))


@graph("a", "b")
def matmul_with_the_weight_left():
    net = Net(3, 4, 4)
    y = net.reshape(stem(net), 0, 8, 16)
    y = net.op("MatMul", net.weight(6, 8, fan_in=8), y, name="b")
    return net.model(net.op("MatMul", net.weight(5, 6, fan_in=6), net.relu(y)))


@graph("a")
def global_mean_without_kept_axes():
    net = Net(3, 6, 6)
    return net.model(net.gemm(net.op("ReduceMean", stem(net), axes=[2, 3], keepdims=0), 8, 5))


@graph("a", "b")
def unflatten():
    net = Net(3, 4, 4)
    y = net.gemm(net.op("Flatten", stem(net)), 128, 6 * 16, name="b")
    y = net.conv_bn_relu(net.reshape(net.relu(y), -1, 6, 4, 4), 6, 4)
    return net.model(net.head(y, 4))


from tests import (  # noqa: E402  (they register theirs)
    models_attention,  # noqa: F401
    models_blocks,  # noqa: F401
    models_control,  # noqa: F401
    models_families,  # noqa: F401
    models_files,  # noqa: F401
    models_heads,  # noqa: F401
    models_operators,  # noqa: F401
    models_quantized,  # noqa: F401
    models_storage,  # noqa: F401
)
