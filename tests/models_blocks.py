"""Tiny graphs, continued: gates, norms, layouts, attention."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from tests.models import graph, stem
from tests.net import Net


def tail(net, x, c=8):
    """A 1 × 1 layer and a head, so that what came before has a consumer."""
    return net.model(net.head(net.conv_bn_relu(x, c, 6, 1, name="z"), 6))


# Gates.


@graph("a", "s")
def squeeze_excite():
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.relu(net.conv(net.op("GlobalAveragePool", x), 8, 4, 1, name="s"))
    y = net.op("HardSigmoid", net.conv(y, 4, 8, 1, name="e"))
    return tail(net, net.op("Mul", x, y))


@graph("a", "s")
def squeeze_excite_by_gemm():
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.reshape_computed(net.op("GlobalAveragePool", x), net.size(x, 0), net.size(x, 1))
    y = net.op("Sigmoid", net.gemm(net.relu(net.gemm(y, 8, 4, name="s")), 4, 8, name="e"))
    y = net.reshape_computed(y, net.size(x, 0), net.size(x, 1), 1, 1)
    return tail(net, net.op("Mul", x, net.op("Expand", y, net.op("Shape", x))))


@graph("free", locked="mixed over its channels in ReduceMean")
def spatial_attention():
    """Channel mean and channel maximum gate the pixels."""
    net = Net(3, 6, 6)
    x = stem(net)
    pooled = [net.op(op, x, axes=[1], keepdims=1) for op in ("ReduceMean", "ReduceMax")]
    gate = net.op("Sigmoid", net.conv(net.op("Concat", *pooled, axis=1), 2, 1))
    y = net.conv_bn_relu("x", 3, 4, name="free")
    return tail(net, net.op("Concat", net.op("Mul", x, gate), y, axis=1), 12)


@graph("z", locked="mixed over its channels in Softmax")
def softmax_over_channels():
    net = Net(3, 6, 6)
    return tail(net, net.op("Softmax", stem(net), axis=1))


@graph("a", "b")
def selective_kernel():
    """Softmax over two branches, one weight a channel."""
    net = Net(3, 6, 6)
    u, v = stem(net), net.conv_bn_relu("x", 3, 8, name="b")
    s = net.op("GlobalAveragePool", net.op("Add", u, v))
    w = net.reshape(net.conv(net.relu(net.conv(s, 8, 4, 1)), 4, 16, 1), 0, 2, 8, 1, 1)
    w = net.op("Softmax", w, axis=1)
    parts = net.op("Split", w, outputs=2, axis=1)
    gated = [
        net.op("Mul", t, net.op("Squeeze", p, net.ints(1)))
        for t, p in zip((u, v), parts, strict=True)
    ]
    return tail(net, net.op("Add", *gated))


@graph("a")
def prelu():
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 8, name="a")
    return tail(net, net.op("PRelu", y, net.vector(8, 1, 1)))


@graph("a")
def layer_scale():
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.op("Mul", net.conv(x, 8, 8), net.vector(8, 1, 1))
    return tail(net, net.op("Add", x, y))


# Norms.


@graph("a")
def instance_norm():
    net = Net(3, 6, 6)
    return tail(net, net.op("InstanceNormalization", stem(net), net.vector(8), net.vector(8)))


@graph("a")
def group_norm_by_instance_norm():
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.reshape(x, 0, 4, -1)
    y = net.op("InstanceNormalization", y, net.store(np.ones(4)), net.store(np.zeros(4)))
    y = net.op("Reshape", y, net.op("Shape", x))
    y = net.op("Add", net.op("Mul", y, net.vector(8, 1, 1)), net.vector(8, 1, 1))
    return tail(net, y)


@graph("a")
def group_norm():
    """The operator of opset 21: four groups of two."""
    net = Net(3, 6, 6, opset=21, ir=10)
    y = net.op("GroupNormalization", stem(net), net.vector(8), net.vector(8), num_groups=4)
    y = net.head(net.conv_bn_relu(y, 8, 6, 1), 6)
    return net.model(y, shapes={y: ["N", 3]})


@graph("z", locked="mixed over its channels in LayerNormalization")
def layer_norm_over_channels():
    net = Net(3, 6, 6)
    y = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])
    y = net.op("LayerNormalization", y, net.vector(8), net.vector(8))
    return tail(net, net.op("Transpose", y, perm=[0, 3, 1, 2]))


@graph("z", locked="mixed over its channels in LRN")
def local_response_norm():
    net = Net(3, 6, 6)
    return tail(net, net.op("LRN", stem(net), size=3))


# Resolution.


@graph("a", "d")
def transposed_conv():
    net = Net(3, 6, 6)
    w = net.weight(8, 6, 2, 2, fan_in=8)
    y = net.op("ConvTranspose", stem(net), w, net.vector(6), strides=[2, 2], name="d")
    return tail(net, net.relu(y), 6)


@graph("a")
def transposed_conv_in_groups():
    net = Net(3, 6, 6)
    return tail(net, net.relu(net.deconv(stem(net), 8, 12, group=2)), 12)


@graph("a")
def transposed_conv_depthwise():
    net = Net(3, 6, 6)
    return tail(net, net.relu(net.deconv(stem(net), 8, 8, group=8)))


@graph("a", "b")
def u_net():
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.conv_bn_relu(net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 8, 10, name="b")
    y = net.op("Concat", x, net.deconv(y, 10, 6), axis=1)
    return tail(net, y, 14)


@graph("a")
def resize_by_scales():
    net = Net(3, 6, 6)
    scales = net.store(np.array([1, 1, 2, 2], np.float32))
    return tail(net, net.op("Resize", stem(net), "", scales, mode="nearest"))


@graph("a", "b")
def resize_to_the_size_of_another():
    """interpolate(y, size=x.shape[2:]): the channel count is part of the sizes."""
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.conv_bn_relu(x, 8, 10, name="b", strides=[2, 2])
    front = net.op("Slice", net.op("Shape", y), net.ints(0), net.ints(2), net.ints(0))
    back = net.op("Slice", net.op("Shape", x), net.ints(2), net.ints(4), net.ints(0))
    y = net.op("Resize", y, "", "", net.op("Concat", front, back, axis=0), mode="linear")
    return tail(net, net.op("Concat", x, y, axis=1), 18)


@graph("a", "b")
def pixel_shuffle():
    net = Net(3, 6, 6)
    y = net.conv(stem(net), 8, 16, name="b")
    return tail(net, net.op("DepthToSpace", y, blocksize=2, mode="CRD"), 4)


@graph("a", "b")
def pixel_shuffle_by_reshape():
    net = Net(3, 6, 6)
    y = net.reshape(net.conv(stem(net), 8, 16, name="b"), -1, 4, 2, 2, 6, 6)
    y = net.op("Transpose", y, perm=[0, 1, 4, 2, 5, 3])
    return tail(net, net.reshape(y, -1, 4, 12, 12), 4)


@graph("a")
def pixel_unshuffle():
    net = Net(3, 6, 6)
    return tail(net, net.op("SpaceToDepth", stem(net, 4), blocksize=2), 16)


@graph("a")
def focus():
    """YOLO's stem on features: four strided slices side by side."""
    net = Net(3, 6, 6)
    x = stem(net)
    ends, steps, axes = net.ints(99, 99), net.ints(2, 2), net.ints(2, 3)
    parts = [
        net.op("Slice", x, net.ints(i, j), ends, axes, steps) for j in range(2) for i in range(2)
    ]
    return tail(net, net.op("Concat", *parts, axis=1), 32)


# Shortcuts of option A.


def _option_a(shortcut, batch="N"):
    net = Net(3, 6, 6, batch=batch)
    x = stem(net)
    y = net.bn(net.conv(x, 8, 16, name="b", strides=[2, 2]), 16)
    thin = net.op("Slice", x, net.ints(0, 0), net.ints(99, 99), net.ints(2, 3), net.ints(2, 2))
    return tail(net, net.relu(net.op("Add", y, shortcut(net, x, thin))), 16)


@graph("a", "b")
def option_a_by_pad():
    """The pads are put together by arithmetic, as traced."""

    def shortcut(net, x, thin):
        before = net.op("ConstantOfShape", net.ints(4), value=_int64(0))
        quarter = net.op("Concat", net.ints(4, 4), net.ints(0, 0, 0, 0, 0, 0), axis=0)
        order = net.op("Gather", quarter, net.ints(2, 0, 3, 4))
        pads = net.op("Concat", net.op("Add", before, order), net.op("Add", before, order), axis=0)
        return net.op("Pad", thin, pads)

    return _option_a(shortcut)


@graph("a", "b")
def option_a_by_stored_zeros():
    return _option_a(
        lambda net, x, thin: net.op("Concat", thin, net.store(np.zeros((2, 8, 3, 3))), axis=1), 2
    )


@graph("a", "b")
def option_a_by_computed_zeros():
    return _option_a(
        lambda net, x, thin: net.op(
            "Concat", thin, net.op("ConstantOfShape", net.op("Shape", thin)), axis=1
        )
    )


@graph("a", "b")
def option_a_by_multiplied_zeros():
    return _option_a(
        lambda net, x, thin: net.op(
            "Concat", thin, net.op("Mul", thin, net.store(np.array(0.0))), axis=1
        )
    )


def _int64(value):
    return numpy_helper.from_array(np.array([value], np.int64))


# Layouts.


@graph("a", "b")
def channels_last_detour():
    net = Net(3, 6, 6)
    y = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])
    y = net.op("Add", net.op("MatMul", y, net.weight(8, 10, fan_in=8), name="b"), net.vector(10))
    y = net.op("Mul", net.op("Sigmoid", y), y)
    return tail(net, net.op("Transpose", y, perm=[0, 3, 1, 2]), 10)


@graph("a")
def expanded_and_tiled():
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.op("Expand", net.op("GlobalAveragePool", x), net.op("Shape", x))
    return tail(net, net.op("Tile", y, net.ints(1, 2, 1, 1)), 16)


@graph("a", "q")
def attention():
    """Two heads over the pixels, as traced: Q Kᵀ / √d, Softmax, V. Whole heads go, or positions."""
    net = Net(3, 4, 4)
    tokens = net.op("Transpose", net.reshape(stem(net), 0, 8, 16), perm=[0, 2, 1])

    def heads(name):
        y = net.op("MatMul", tokens, net.weight(8, 8, fan_in=8), name=name)
        y = net.reshape_computed(net.op("Add", y, net.vector(8)), net.size(y, 0), 16, 2, 4)
        return net.op("Transpose", y, perm=[0, 2, 1, 3])

    q, k, v = heads("q"), heads("k"), heads("v")
    depth = net.op("Sqrt", net.op("Cast", net.size(q, 3), to=1))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    weights = net.op("Softmax", net.op("Div", scores, depth), axis=-1)
    y = net.op("Transpose", net.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    y = net.reshape_computed(y, net.size(y, 0), 16, -1)
    y = net.linear(y, 8, 6)
    y = net.op("ReduceMean", y, axes=[1], keepdims=0)
    return net.model(net.gemm(y, 6, 3))


@graph("a")
def class_token():
    """A learned token beside the pixels."""
    net = Net(3, 4, 4)
    x = stem(net)
    tokens = net.op("Transpose", net.reshape(x, 0, 8, 16), perm=[0, 2, 1])
    shape = net.op("Concat", net.size(x, 0), net.ints(1), net.size(x, 1), axis=0)
    token = net.op("Expand", net.vector(1, 1, 8), shape)
    y = net.op("Add", net.op("Concat", token, tokens, axis=1), net.vector(1, 17, 8))
    first = net.op("Gather", y, net.store(np.array(0, np.int64)), axis=1)
    return net.model(net.gemm(first, 8, 3))


@graph("a", "b")
def one_dimensional():
    net = Net(3, 9)
    y = net.relu(net.conv("x", 3, 8, rank=1, name="a"))
    y = net.relu(net.conv(y, 8, 6, rank=1, name="b", dilations=[2], pads=[2, 2]))
    return net.model(net.head(y, 6))


@graph("a", "b")
def three_dimensional():
    net = Net(3, 4, 4, 4)
    y = net.relu(net.bn(net.conv("x", 3, 8, rank=3, name="a"), 8))
    y = net.relu(net.conv(y, 8, 6, rank=3, name="b"))
    return net.model(net.head(y, 6))


@graph("a")
def recurrent_head():
    """Columns of pixels read by an LSTM, as in text recognition."""
    net = Net(3, 6, 6)
    columns = net.op("ReduceMean", stem(net), axes=[2], keepdims=0)  # (N, C, W)
    steps = net.op("Transpose", columns, perm=[2, 0, 1])
    w, r = net.weight(1, 20, 8, fan_in=8), net.weight(1, 20, 5, fan_in=5)
    y, _, _ = net.op("LSTM", steps, w, r, outputs=3, hidden_size=5)
    return net.model(net.linear(net.op("Squeeze", y, net.ints(1)), 5, 3))


@graph("a")
def matmul_with_a_weight_for_each_head():
    net = Net(3, 4, 4)
    tokens = net.op("Transpose", net.reshape(stem(net), 0, 2, 4, 16), perm=[0, 1, 3, 2])
    y = net.op("MatMul", tokens, net.weight(2, 4, 5, fan_in=4))  # (N, 2, 16, 5)
    return net.model(net.op("ReduceMean", y, axes=[1, 2], keepdims=0))


@graph("a", "b")
def old_operators():
    """Opset 9: windows, pads, scales and axes are attributes."""
    net = Net(3, 6, 6, opset=9)
    x = stem(net)
    y = net.op("Slice", x, starts=[0, 1], ends=[5, 5], axes=[1, 2])
    y = net.op("Pad", y, pads=[0, 2, 0, 0, 0, 1, 2, 0], mode="constant")
    y = net.op("Upsample", net.op("Add", x, y), net.store(np.array([1, 1, 2, 2], np.float32)))
    u, v = net.op("Split", net.conv(y, 8, 6, name="b"), outputs=2, axis=1, split=[2, 4])
    y = net.op("Concat", net.op("Dropout", v), u, axis=1)
    y = net.op("Squeeze", net.op("GlobalMaxPool", y), axes=[2, 3])
    return net.model(net.gemm(y, 6, 3))
