"""Tiny graphs, continued: the blocks of well-known families of networks."""

from __future__ import annotations

import numpy as np

from tests.models import graph, stem
from tests.models_blocks import tail
from tests.net import Net


def sizes_like(net, x, like, c):
    """Sizes for a Resize of x to the height and width of another tensor, as traced."""
    front = net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(2), net.ints(0))
    back = net.op("Slice", net.op("Shape", like), net.ints(2), net.ints(4), net.ints(0))
    return net.op("Concat", front, back, axis=0)


def resize_like(net, x, like, c, mode="nearest"):
    return net.op("Resize", x, "", "", sizes_like(net, x, like, c), mode=mode)


def doubled(net, x, mode="nearest"):
    scales = net.raw(np.array([1, 1, 2, 2], np.float32))
    return net.op("Resize", x, "", scales, mode=mode)


# Splits and joins.


@graph("a", "b", "c1", "c3")
def res2net():
    """Four slices of the channels, each convolved with the sum of the ones before."""
    net = Net(3, 6, 6)
    x = stem(net)
    parts = net.op("Split", net.conv_bn_relu(x, 8, 8, 1, name="b"), outputs=4, axis=1)
    outs, last = [parts[0]], None
    for i, part in enumerate(parts[1:], 1):
        y = part if last is None else net.op("Add", part, last)
        last = net.conv_bn_relu(y, 2, 2, name=f"c{i}")
        outs.append(last)
    y = net.bn(net.conv(net.op("Concat", *outs, axis=1), 8, 8, 1, name="d"), 8)
    return tail(net, net.relu(net.op("Add", x, y)))


@graph("a", "u", "v", "b")
def cross_stage_partial():
    net = Net(3, 6, 6)
    x = stem(net)
    u, v = (net.conv_bn_relu(x, 8, 6, 1, name=name) for name in "uv")
    y = net.conv_bn_relu(net.conv_bn_relu(u, 6, 4, 1, name="b"), 4, 6)
    return tail(net, net.op("Concat", net.op("Add", u, y), v, axis=1), 12)


@graph("a", "b", "c", "d")
def c2f():
    """YOLOv8: split, a chain of bottlenecks on the second half, everything joined."""
    net = Net(3, 6, 6)
    parts = list(net.op("Split", net.conv_bn_relu(stem(net), 8, 8, 1, name="b"), outputs=2, axis=1))
    for name in ("c", "d"):
        y = net.conv_bn_relu(net.conv_bn_relu(parts[-1], 4, 3, name=name), 3, 4)
        parts.append(net.op("Add", parts[-1], y))
    return tail(net, net.op("Concat", *parts, axis=1), 16)


@graph("a", "p", "q")
def spatial_pyramid_pooling_fast():
    net = Net(3, 6, 6)
    parts = [net.conv_bn_relu(stem(net), 8, 5, 1, name="p")]
    for _ in range(3):
        parts.append(net.op("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2] * 4))
    return tail(net, net.conv_bn_relu(net.op("Concat", *parts, axis=1), 20, 8, 1, name="q"))


@graph("a", "p", "d")
def ghost_module():
    """Half of the channels made by a cheap depthwise layer, the surplus sliced off."""
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net), 8, 5, 1, name="p")
    z = net.conv_bn_relu(y, 5, 5, group=5, name="d")
    y = net.op("Concat", y, z, axis=1)
    return tail(net, net.op("Slice", y, net.ints(0), net.ints(9), net.ints(1)), 9)


@graph("a", "b", "c")
def shuffle_net_v2_unit():
    net = Net(3, 6, 6)
    u, v = net.op("Split", stem(net), outputs=2, axis=1)
    v = net.conv_bn_relu(v, 4, 4, 1, name="b")
    v = net.conv_bn_relu(net.bn(net.conv(v, 4, 4, group=4, name="d"), 4), 4, 4, 1, name="c")
    y = net.reshape(net.op("Concat", u, v, axis=1), -1, 2, 4, 6, 6)
    y = net.reshape(net.op("Transpose", y, perm=[0, 2, 1, 3, 4]), -1, 8, 6, 6)
    u, v = net.op("Split", y, outputs=2, axis=1)
    return tail(net, net.op("Concat", u, net.conv_bn_relu(v, 4, 4, 1), axis=1))


@graph("a", "b")
def dual_path():
    """A residual stream and a dense one in the same block."""
    net = Net(3, 6, 6)
    res, dense, width = stem(net), net.conv("x", 3, 4, name="e"), 4
    for name in ("b", "c"):
        y = net.conv_bn_relu(net.op("Concat", res, dense, axis=1), 8 + width, 11, name=name)
        u = net.op("Slice", y, net.ints(0), net.ints(8), net.ints(1))
        v = net.op("Slice", y, net.ints(8), net.ints(11), net.ints(1))
        res, dense = net.op("Add", res, u), net.op("Concat", dense, v, axis=1)
        width += 3
    return tail(net, net.op("Concat", res, dense, axis=1), 8 + width)


@graph("a", "b", "c", "d")
def one_shot_aggregation():
    """VoVNet: all layers joined once, then squeezed, gated and added."""
    net = Net(3, 6, 6)
    x = stem(net)
    parts, width = [x], 8
    for name in "bcd":
        parts.append(net.conv_bn_relu(parts[-1], width, 4, name=name))
        width = 4
    y = net.conv_bn_relu(net.op("Concat", *parts, axis=1), 20, 8, 1)
    gate = net.op("HardSigmoid", net.conv(net.op("GlobalAveragePool", y), 8, 8, 1))
    return tail(net, net.op("Add", x, net.op("Mul", y, gate)))


@graph("a", "b")
def gated_by_computed_slices():
    """GLU, its halves cut at a width computed from the shape."""
    net = Net(3, 6, 6)
    y = net.conv(stem(net), 8, 12, name="b")
    whole = net.size(y, 1)
    half = net.op("Div", whole, net.ints(2))
    u = net.op("Slice", y, net.ints(0), half, net.ints(1))
    v = net.op("Slice", y, half, whole, net.ints(1))
    return tail(net, net.op("Mul", u, net.op("Sigmoid", v)), 6)


@graph("a", "b", "c")
def repeated_operands():
    """x + x, x joined with x, and the larger of x and x."""
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.conv_bn_relu(net.op("Add", x, x), 8, 6, name="b")
    y = net.conv_bn_relu(net.op("Concat", y, y, axis=1), 12, 4, name="c")
    return tail(net, net.op("Max", y, y, y), 4)


# Several resolutions.


@graph("a", "b", "h", "l", "u")
def high_resolution_net():
    """Two branches that exchange: strided convolution down, 1 × 1 and Resize up."""
    net = Net(3, 8, 8)
    x = stem(net)
    high = net.conv_bn_relu(x, 8, 6, name="h")
    low = net.conv_bn_relu(x, 8, 10, name="l", strides=[2, 2])
    up = doubled(net, net.bn(net.conv(low, 10, 6, 1, name="u"), 6))
    down = net.bn(net.conv(high, 6, 10, name="b", strides=[2, 2]), 10)
    high = net.relu(net.op("Add", high, up))
    low = net.relu(net.op("Add", low, down))
    y = net.op("Concat", high, resize_like(net, low, high, 10, "linear"), axis=1)
    return tail(net, y, 16)


@graph("a", "c4", "p3", "p4")
def feature_pyramid():
    """Lateral layers, the top added to the one below, a head of two levels."""
    net = Net(3, 8, 8)
    c3 = stem(net)
    c4 = net.conv_bn_relu(c3, 8, 10, name="c4", strides=[2, 2])
    l3, l4 = net.conv(c3, 8, 6, 1, name="l3"), net.conv(c4, 10, 6, 1, name="l4")
    l3 = net.op("Add", l3, resize_like(net, l4, l3, 6))
    p3, p4 = net.conv(l3, 6, 6, name="p3"), net.conv(l4, 6, 6, name="p4")
    w = net.weight(4, 6, 3, 3, fan_in=54)  # one head for both levels
    heads = [net.op("Conv", net.relu(p), w, pads=[1] * 4) for p in (p3, p4)]
    return net.model(*heads)


@graph("a", "c4", "n3", "n4")
def path_aggregation():
    """Down the pyramid and up again, with joins."""
    net = Net(3, 8, 8)
    c3 = stem(net)
    c4 = net.conv_bn_relu(c3, 8, 10, name="c4", strides=[2, 2])
    n3 = net.op("Concat", doubled(net, net.conv_bn_relu(c4, 10, 5, 1, name="r")), c3, axis=1)
    n3 = net.conv_bn_relu(n3, 13, 6, name="n3")
    n4 = net.op("Concat", net.conv_bn_relu(n3, 6, 6, strides=[2, 2]), c4, axis=1)
    n4 = net.conv_bn_relu(n4, 16, 7, name="n4")
    return net.model(net.conv(n3, 6, 4, 1), net.conv(n4, 7, 4, 1))


@graph("a", "b")
def weighted_fusion():
    """BiFPN: features weighted by numbers that are normalised in the graph."""
    net = Net(3, 8, 8)
    x, y = stem(net), net.conv_bn_relu("x", 3, 8, name="b")
    w = net.relu(net.vector(2, low=0.5, high=1.5))
    w = net.op("Div", w, net.op("Add", net.op("ReduceSum", w, net.ints(0), keepdims=1),
                                net.store(np.array(1e-4))))  # fmt: skip
    terms = [
        net.op("Mul", t, net.op("Gather", w, net.raw(np.array(i)), axis=0))
        for i, t in enumerate((x, y))
    ]
    return tail(net, net.op("Sum", *terms))


@graph("a", "b", "d")
def u_net_with_bilinear_resize():
    net = Net(3, 8, 8)
    x = stem(net)
    y = net.conv_bn_relu(net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 8, 10, name="b")
    y = net.op("Concat", resize_like(net, y, x, 10, "linear"), x, axis=1)
    return net.model(net.conv(net.conv_bn_relu(y, 18, 6, name="d"), 6, 2, 1))


@graph("a", "b")
def super_resolution():
    """Pixel shuffle to an image, added to the enlarged input."""
    net = Net(3, 6, 6)
    y = net.conv(net.conv_bn_relu(stem(net), 8, 6, name="b"), 6, 12, name="c")
    y = net.op("DepthToSpace", y, blocksize=2, mode="CRD")
    return net.model(net.op("Add", y, doubled(net, "x")))


@graph("a", "b")
def pyramid_pooling():
    """PSPNet: pooled to several grids, enlarged, joined with the features."""
    net = Net(3, 6, 6)
    x = stem(net)
    parts = [x]
    for k, name in ((6, "b"), (3, "c")):
        y = net.op("AveragePool", x, kernel_shape=[k, k], strides=[k, k])
        y = net.conv_bn_relu(y, 8, 4, 1, name=name)
        parts.append(resize_like(net, y, x, 4, "linear"))
    return net.model(net.conv(net.op("Concat", *parts, axis=1), 16, 3, 1))


# Parallel branches.


@graph("a", "b3", "b1", "c")
def rep_vgg():
    """3 × 3, 1 × 1 and identity, each with its BatchNormalization."""
    net = Net(3, 6, 6)
    x = stem(net)
    three = net.bn(net.conv(x, 8, 8, bias=False, name="b3"), 8)
    one = net.bn(net.conv(x, 8, 8, 1, bias=False, name="b1"), 8)
    y = net.relu(net.op("Add", net.op("Add", three, one), net.bn(x, 8)))
    return tail(net, net.conv_bn_relu(y, 8, 6, name="c"), 6)


@graph("a", "d", "s")
def mobile_one():
    """Depthwise branches and a scale branch of one pixel, then pointwise ones."""
    net = Net(3, 6, 6)
    x = stem(net)
    branches = [net.bn(net.conv(x, 8, 8, group=8, bias=False, name="d"), 8)]
    branches.append(net.bn(net.conv(x, 8, 8, 1, group=8, bias=False, name="s"), 8))
    y = net.relu(net.op("Add", net.op("Add", *branches), net.bn(x, 8)))
    y = net.op("Add", *(net.bn(net.conv(y, 8, 6, 1, bias=False), 6) for _ in range(2)))
    return tail(net, net.relu(y), 6)


@graph("a", "e", "d", "p")
def inverted_residual():
    """Expand, depthwise, squeeze and excite, project; hard-swish written out."""
    net = Net(3, 6, 6)

    def hard_swish(y):
        t = net.op("Clip", net.op("Add", y, net.store(np.array(3.0))), net.store(np.array(0.0)),
                   net.store(np.array(6.0)))  # fmt: skip
        return net.op("Div", net.op("Mul", y, t), net.store(np.array(6.0)))

    x = stem(net)
    y = hard_swish(net.bn(net.conv(x, 8, 12, 1, name="e"), 12))
    y = hard_swish(net.bn(net.conv(y, 12, 12, group=12, name="d"), 12))
    s = net.op("ReduceMean", y, axes=[2, 3], keepdims=1)
    s = net.conv(net.relu(net.conv(s, 12, 4, 1, name="s")), 4, 12, 1)
    y = net.op("Mul", y, net.op("HardSigmoid", s))
    return tail(net, net.op("Add", x, net.bn(net.conv(y, 12, 8, 1, name="p"), 8)))


@graph("d", "p", "q")
def conv_next():
    """Depthwise, LayerNormalization over channels-last, two linear layers, a scale, a shortcut."""
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.conv(x, 8, 8, group=8, name="w")
    y = net.op("Transpose", y, perm=[0, 2, 3, 1])
    y = net.op("LayerNormalization", y, net.vector(8), net.vector(8))
    y = net.op("MatMul", y, net.weight(8, 16, fan_in=8), name="p")
    y = net.op("Gelu", y) if net.opset >= 20 else net.op("Mul", y, net.op("Sigmoid", y))
    y = net.op("Add", net.op("MatMul", y, net.weight(16, 8, fan_in=16)), net.vector(8))
    y = net.op("Transpose", net.op("Mul", y, net.vector(8)), perm=[0, 3, 1, 2])
    y = net.op("Add", x, y)
    y = net.conv_bn_relu(y, 8, 6, name="d")
    return tail(net, net.conv_bn_relu(y, 6, 6, name="q"), 6)


@graph("z", stays=["a"], locked="mixed over its channels in ReduceMean")
def global_response_norm():
    """ConvNeXt V2: the norm of each channel, divided by the mean of all."""
    net = Net(3, 6, 6)
    x = stem(net)
    g = net.op("ReduceL2", x, axes=[2, 3], keepdims=1)
    mean = net.op("ReduceMean", g, axes=[1], keepdims=1)
    n = net.op("Div", g, net.op("Add", mean, net.store(np.array(1e-6))))
    y = net.op("Add", net.op("Mul", net.op("Mul", x, n), net.vector(1, 8, 1, 1)), x)
    return tail(net, y)


@graph("z", stays=["a"], locked="mixed over its channels in ReduceMean")
def channel_mean():
    """The mean over channels is one feature map."""
    net = Net(3, 6, 6)
    y = net.op("ReduceMean", stem(net), axes=[1], keepdims=1)
    return tail(net, net.conv_bn_relu(y, 1, 8, name="b"))


@graph("a", "b", "h")
def coordinate_attention():
    """Pooled along each side, joined on one axis, split again, two gates."""
    net = Net(3, 6, 6)
    x = stem(net)
    high = net.op("ReduceMean", x, axes=[3], keepdims=1)
    wide = net.op("Transpose", net.op("ReduceMean", x, axes=[2], keepdims=1), perm=[0, 1, 3, 2])
    y = net.conv_bn_relu(net.op("Concat", high, wide, axis=2), 8, 4, 1, name="b")
    u, v = net.op("Split", y, net.ints(6, 6), outputs=2, axis=2)
    u = net.op("Sigmoid", net.conv(u, 4, 8, 1, name="h"))
    v = net.op("Sigmoid", net.conv(net.op("Transpose", v, perm=[0, 1, 3, 2]), 4, 8, 1))
    return tail(net, net.op("Mul", net.op("Mul", x, u), v))


@graph("a", "b")
def split_attention():
    """ResNeSt: two groups of channels, weighted by a softmax over the groups."""
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net), 8, 12, group=2, name="b")
    y = net.reshape(y, 0, 2, 6, 6, 6)
    s = net.op("ReduceMean", net.op("ReduceSum", y, net.ints(1), keepdims=0), axes=[2, 3])
    s = net.conv(net.conv_bn_relu(s, 6, 4, 1, name="s"), 4, 12, 1)
    s = net.op("Softmax", net.reshape(s, 0, 2, 6, 1, 1), axis=1)
    return tail(net, net.op("ReduceSum", net.op("Mul", y, s), net.ints(1), keepdims=0), 6)


@graph("a", "k", stays=["b"])
def efficient_channel_attention():
    """A 1-D convolution slides over the channels: positions matter, all of them stay."""
    net = Net(3, 6, 6)
    x = net.conv_bn_relu("x", 3, 8, name="k")
    x = net.conv_bn_relu(x, 8, 8, name="a")
    y = net.conv_bn_relu(x, 8, 8, name="b")
    s = net.op("Transpose", net.op("Squeeze", net.op("GlobalAveragePool", y), net.ints(3)),
               perm=[0, 2, 1])  # fmt: skip
    s = net.op("Sigmoid", net.conv(s, 1, 1, 3, rank=1))
    s = net.op("Unsqueeze", net.op("Transpose", s, perm=[0, 2, 1]), net.ints(3))
    return tail(net, net.op("Mul", y, s))


# Poolings.


@graph("a")
def global_pool_by_average_pool():
    net = Net(3, 6, 6)
    y = net.op("AveragePool", stem(net), kernel_shape=[6, 6])
    return net.model(net.gemm(net.op("Flatten", y), 8, 3))


@graph("a")
def global_pool_by_strided_average_pool():
    """Adaptive pooling to 2 × 2, as traced, and Flatten over more than one position."""
    net = Net(3, 6, 6)
    y = net.op("AveragePool", stem(net), kernel_shape=[3, 3], strides=[3, 3])
    return net.model(net.gemm(net.reshape_computed(y, net.size(y, 0), -1), 32, 3))


@graph("a")
def mean_and_maximum_pooled():
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.op("Concat", net.op("GlobalAveragePool", x), net.op("GlobalMaxPool", x), axis=1)
    return net.model(net.gemm(net.op("Flatten", y), 16, 3))


@graph("a")
def mean_and_deviation_pooled():
    net = Net(3, 6, 6)
    x = net.reshape(stem(net), 0, 8, -1)
    mean = net.op("ReduceMean", x, axes=[2], keepdims=1)
    spread = net.op("ReduceMean", net.op("Mul", net.op("Sub", x, mean), net.op("Sub", x, mean)),
                    axes=[2], keepdims=0)  # fmt: skip
    y = net.op("Concat", net.op("Squeeze", mean, net.ints(2)), net.op("Sqrt", spread), axis=1)
    return net.model(net.gemm(y, 16, 3))


@graph("a")
def generalised_mean_pooled():
    """GeM: a power, a mean, a root."""
    net = Net(3, 6, 6)
    y = net.op(
        "Pow", net.op("Clip", stem(net), net.store(np.array(1e-3))), net.vector(1, low=2, high=3)
    )
    y = net.op("Pow", net.op("GlobalAveragePool", y), net.store(np.array(0.5)))
    return net.model(net.gemm(net.op("Flatten", y), 8, 3))


# Layouts of the whole.


@graph("a", "b", "p", "q")
def independent_parts():
    """Two networks in one file, one of them behind an input of its own."""
    net = Net(3, 6, 6)
    z = net.input("z", "N", 2, 6, 6)
    one = net.head(net.conv_bn_relu(stem(net), 8, 6, name="b"), 6)
    two = net.head(net.conv_bn_relu(net.conv_bn_relu(z, 2, 8, name="p"), 8, 6, name="q"), 6)
    return net.model(one, two)


@graph("a", "b")
def siamese_in_one_batch():
    """Two inputs stacked along the batch, parted at the end."""
    net = Net(3, 6, 6)
    z = net.input("z", "N", 3, 6, 6)
    y = net.op("Concat", "x", z, axis=0)
    y = net.conv_bn_relu(net.conv_bn_relu(y, 3, 8, name="a"), 8, 6, name="b")
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    u, v = net.op("Split", y, outputs=2, axis=0)
    y = net.op("Mul", u, v)
    return net.model(net.gemm(y, 6, 3), shapes={f"gemm_{len(net.nodes)}_out": ["N", 3]})


@graph("a", "b")
def siamese_by_similarity():
    """Features of two inputs, normalised and multiplied: the width is contracted."""
    net = Net(batch="N")
    w = net.weight(8, 3, 3, 3, fan_in=27)
    v = net.weight(6, 8, 3, 3, fan_in=72)
    arms = []
    for i in range(2):
        x = net.input(f"x{i}", 4, 3, 6, 6)
        y = net.relu(net.op("Conv", x, w, pads=[1] * 4, name="a" if i == 0 else f"a{i}"))
        y = net.relu(net.op("Conv", y, v, pads=[1] * 4, name="b" if i == 0 else f"b{i}"))
        arms.append(net.op("Flatten", net.op("GlobalAveragePool", y)))
    return net.model(net.op("MatMul", arms[0], net.op("Transpose", arms[1], perm=[1, 0])))


@graph("a", stays=["b"], locked="both factors of MatMul 'matmul_8' carry channels")
def gram_matrix():
    """x xᵀ over the pixels, as style losses and bilinear pooling have it; channels are kept."""
    net = Net(3, 4, 4)
    y = net.conv_bn_relu(stem(net), 8, 6, name="b")
    y = net.reshape(y, 0, 6, 16)
    y = net.op("MatMul", y, net.op("Transpose", y, perm=[0, 2, 1]))
    return net.model(net.gemm(net.op("Flatten", y), 36, 3, name="fc"))


@graph("a", "b")
def self_similarity():
    """xᵀ x over the channels: every pair of pixels."""
    net = Net(3, 4, 4)
    y = net.conv_bn_relu(stem(net), 8, 6, name="b")
    y = net.reshape(y, 0, 6, 16)
    y = net.op("MatMul", net.op("Transpose", y, perm=[0, 2, 1]), y)
    return net.model(net.gemm(net.op("Flatten", y), 256, 3))


@graph("a", "b")
def temporal_shift():
    """Frames in the batch: a quarter of the channels moves one frame on, another one back."""
    net = Net(3, 6, 6, batch=4)
    y = stem(net)
    t = net.reshape(y, 2, 2, 8, 6, 6)

    def part(start, end, frames):
        return net.op("Slice", t, net.ints(start, frames[0]), net.ints(end, frames[1]),
                      net.ints(2, 1))  # fmt: skip

    fore = net.op("Pad", part(0, 2, (1, 2)), net.ints(0, 0, 0, 0, 0, 0, 1, 0, 0, 0))
    back = net.op("Pad", part(2, 4, (0, 1)), net.ints(0, 1, 0, 0, 0, 0, 0, 0, 0, 0))
    y = net.reshape(net.op("Concat", fore, back, part(4, 8, (0, 2)), axis=2), 4, 8, 6, 6)
    return tail(net, net.conv_bn_relu(y, 8, 8, name="b"))
