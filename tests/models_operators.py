"""Tiny graphs, continued: operators that are rare in networks, and rare uses of common ones."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.models import graph, stem
from tests.models_blocks import tail
from tests.net import Net

INT64 = TensorProto.INT64


# Einsum.


@graph("a", "z")
def einsum_as_pointwise_conv():
    net = Net(3, 6, 6)
    y = net.op("Einsum", stem(net), net.weight(6, 8, fan_in=8), equation="nchw,dc->ndhw", name="e")
    return tail(net, net.relu(y), 6)


@graph("a", "z")
def einsum_as_linear_layer():
    """Spaces, an ellipsis, the weight in front."""
    net = Net(3, 6, 6)
    y = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])
    y = net.op("Einsum", net.weight(8, 6, fan_in=8), y, equation="ij, ...i -> ...j", name="e")
    return tail(net, net.op("Transpose", net.relu(y), perm=[0, 3, 1, 2]), 6)


@graph("a")
def einsum_as_gemm():
    net = Net(3, 6, 6)
    y = net.op("Flatten", net.op("GlobalAveragePool", stem(net)))
    return net.model(net.op("Einsum", y, net.weight(3, 8, fan_in=8), equation="bi,oi->bo"))


@graph("a", "z")
def einsum_of_one_operand():
    """A transpose and a sum over the columns."""
    net = Net(3, 6, 6)
    y = net.op("Einsum", stem(net), equation="nchw->nhc")
    y = net.op("Unsqueeze", net.op("Transpose", y, perm=[0, 2, 1]), net.ints(3))
    return tail(net, y)


@graph("a", "b", "z")
def einsum_of_two_activations():
    """An outer product that keeps the channels, and a gate for each of them."""
    net = Net(3, 6, 6)
    x, y = stem(net), net.conv("x", 3, 8, name="b")
    gate = net.op("Squeeze", net.op("GlobalAveragePool", y), net.ints(2, 3))
    return tail(net, net.op("Einsum", x, gate, equation="nchw,nc->nchw"))


# Gathering and scattering.


@graph("a", "z")
def gather_nd_of_pixels():
    """The same pixels of every image and channel, by a table of positions."""
    net = Net(3, 4, 4)
    y = net.op("Transpose", stem(net), perm=[2, 3, 0, 1])
    y = net.op("GatherND", y, net.raw(np.array([[0, 1], [2, 3], [1, 1]])))  # (3, N, C)
    y = net.op("Unsqueeze", net.op("Transpose", y, perm=[1, 2, 0]), net.ints(3))
    return tail(net, y)


@graph("a", "z")
def gather_nd_of_channels():
    net = Net(3, 4, 4)
    y = net.op("Transpose", stem(net), perm=[1, 0, 2, 3])
    y = net.op("GatherND", y, net.raw(np.array([[1], [7], [4], [0], [2]])))
    return tail(net, net.op("Transpose", y, perm=[1, 0, 2, 3]), 5)


@graph("a", "z", open="GatherElements with one order of channels for all positions is a Gather")
def gather_elements_of_channels():
    """One order of channels, the same at every pixel."""
    net = Net(3, 4, 4, batch=2)
    order = np.array([3, 1, 0, 2, 7, 6, 5, 4]).reshape(1, 8, 1, 1)
    table = net.raw(np.ascontiguousarray(np.broadcast_to(order, (2, 8, 4, 4))))
    return tail(net, net.op("GatherElements", stem(net), table, axis=1))


@graph("z", stays=["a"], locked="ScatterND")
def scatter_nd():
    """index_put as the dynamo exporter writes it: a row of pixels is overwritten."""
    net = Net(3, 4, 4, batch=2)
    y = net.op("Transpose", stem(net), perm=[2, 0, 1, 3])
    new = net.store(net.rng.normal(size=(1, 2, 8, 4)))
    y = net.op("ScatterND", y, net.raw(np.array([[1]])), new)
    return tail(net, net.op("Transpose", y, perm=[1, 2, 0, 3]))


@graph("a", "z")
def scatter_elements():
    net = Net(3, 4, 4, batch=2)
    x = stem(net)
    at = net.raw(np.zeros((2, 8, 4, 1), np.int64))
    return tail(net, net.op("ScatterElements", x, at, net.store(np.ones((2, 8, 4, 1))), axis=3))


@graph("z")
def scatter_elements_in_some_channels():
    """Only the first three channels are written to, each at another pixel."""
    net = Net(3, 4, 4, batch=2)
    x = stem(net)
    at = net.raw(net.rng.integers(0, 4, (2, 3, 4, 1)))
    return tail(net, net.op("ScatterElements", x, at, net.vector(2, 3, 4, 1), axis=3))


@graph("z")
def scatter_elements_along_channels():
    net = Net(3, 4, 4, batch=2)
    x = stem(net)
    at = net.raw(np.tile(np.array([1, 6]).reshape(1, 2, 1, 1), (2, 1, 4, 4)))
    return tail(net, net.op("ScatterElements", x, at, net.vector(2, 2, 4, 4), axis=1))


@graph("z")
def gather_elements_of_some_channels():
    """Pixels picked from the first five channels, the others are left behind."""
    net = Net(3, 4, 4, batch=2)
    at = net.raw(net.rng.integers(0, 4, (2, 5, 4, 3)))
    return tail(net, net.op("GatherElements", stem(net), at, axis=3), 5)


@graph("z")
def scatter_nd_in_some_channels():
    net = Net(3, 4, 4, batch=2)
    y = net.op("Transpose", stem(net), perm=[1, 0, 2, 3])
    y = net.op("ScatterND", y, net.raw(np.array([[2], [5]])), net.vector(2, 2, 4, 4))
    return tail(net, net.op("Transpose", y, perm=[1, 0, 2, 3]))


@graph("z")
def gathered_by_scores():
    """The pixels with the best scores, of every channel."""
    net = Net(3, 4, 4)
    x = net.reshape(stem(net), 0, 8, 16)
    _, at = net.op("TopK", net.op("ReduceMean", x, axes=[1], keepdims=1), net.ints(4), outputs=2)
    at = net.op("Expand", at, net.ints(1, 8, 1))
    return tail(net, net.reshape(net.op("GatherElements", x, at, axis=2), 0, 8, 2, 2))


@graph("a", "z", stays=["s"])
def masked_with_trilu():
    """A causal mask on scores between pixels."""
    net = Net(3, 4, 4)
    x = stem(net)
    y = net.conv(x, 8, 16, 1, name="s")  # one score for each pixel
    y = net.op("Trilu", net.op("Softmax", net.reshape(y, 0, 16, 16), axis=2), upper=0)
    x = net.op("MatMul", net.reshape(x, 0, 8, 16), y)
    return tail(net, net.reshape(x, 0, 8, 4, 4))


@graph("z", stays=["a"], locked="Trilu")
def channels_masked_with_trilu():
    net = Net(3, 8, 8)
    y = net.op("Trilu", net.op("Transpose", stem(net), perm=[0, 2, 1, 3]), upper=1)
    return tail(net, net.op("Transpose", y, perm=[0, 2, 1, 3]))


@graph("a", "z", stays=["s"], locked="mixed over its channels in ArgMax")
def one_hot_of_the_best_channel():
    net = Net(3, 6, 6)
    x = stem(net)
    best = net.op("ArgMax", net.conv(x, 8, 4, 1, name="s"), axis=1, keepdims=0)
    y = net.op("OneHot", best, net.ints(4), net.store(np.array([0.0, 1.0])), axis=1)
    return tail(net, net.op("Concat", x, y, axis=1), 12)


@graph("z", stays=["a"], locked="TopK")
def largest_channels():
    net = Net(3, 6, 6)
    y, _ = net.op("TopK", stem(net), net.ints(5), outputs=2, axis=1)
    return tail(net, y, 5)


@graph("a", "z")
def largest_pixels():
    net = Net(3, 4, 4)
    y, _ = net.op("TopK", net.reshape(stem(net), 0, 8, 16), net.ints(4), outputs=2, axis=2)
    return tail(net, net.reshape(y, 0, 8, 2, 2))


@graph("b", stays=["a"], locked="NonZero")
def positions_of_non_zeros():
    net = Net(3, 6, 6, batch=1)
    x = stem(net)
    y = net.op("NonZero", x)
    z = net.head(net.conv_bn_relu("x", 3, 6, name="b"), 6)
    return net.model(z, y, types={y: INT64}, shapes={y: [4, "K"]})


@graph("b", stays=["a"], locked="Unique")
def unique_values():
    net = Net(3, 6, 6)
    y = net.op("Unique", net.op("Round", stem(net)))
    z = net.head(net.conv_bn_relu("x", 3, 6, name="b"), 6)
    return net.model(z, y, shapes={y: ["K"]})


# Pixels.


@graph("a", "b", "z", open="Col2Im has no rule")
def folded_patches():
    """torch.nn.Fold: columns of patches laid out as an image."""
    net = Net(3, 4, 4, opset=18)
    y = net.conv_bn_relu(stem(net), 8, 12, name="b", strides=[2, 2])
    y = net.op("Col2Im", net.reshape(y, 0, 12, 4), net.ints(4, 4), net.ints(2, 2), strides=[2, 2])
    return tail(net, y, 3)


@graph("a", "z")
def unfolded_patches():
    """torch.nn.Unfold, as traced: a Gather of rows and of columns with tables of indices."""
    net = Net(3, 4, 4)
    rows = net.raw(np.array([[0, 1, 2], [1, 2, 3]]))
    y = net.op("Gather", net.op("Gather", stem(net), rows, axis=2), rows, axis=4)
    y = net.op("Transpose", y, perm=[0, 1, 2, 4, 3, 5])
    y = net.op("MatMul", net.op("Transpose", net.reshape(y, 0, 32, 9), perm=[0, 2, 1]),
               net.weight(32, 6, fan_in=32))  # fmt: skip
    return tail(net, net.reshape(net.op("Transpose", y, perm=[0, 2, 1]), 0, 6, 3, 3), 6)


@graph("z", stays=["a"], locked="indices of MaxPool")
def unpooled_by_indices():
    """SegNet: MaxPool hands its indices to MaxUnpool."""
    net = Net(3, 6, 6)
    y, at = net.op("MaxPool", stem(net), outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("MaxUnpool", net.relu(y), at, kernel_shape=[2, 2], strides=[2, 2])
    return tail(net, y)


@graph("a", "z")
def indices_of_maxima_unused():
    net = Net(3, 6, 6)
    y, _ = net.op("MaxPool", stem(net), outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    return tail(net, y)


@graph("b", "z", stays=["a"])
def indices_of_maxima_as_an_output():
    """The indices count across the channels: they would move."""
    net = Net(3, 6, 6)
    x = stem(net)
    y, at = net.op("MaxPool", x, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    y = net.conv_bn_relu(net.conv_bn_relu(y, 8, 6, name="b"), 6, 6, 1, name="z")
    return net.model(net.head(y, 6), at, types={at: INT64}, shapes={at: ["N", 8, 3, 3]})


@graph("z", stays=["a"], locked="DeformConv")
def deformable_conv():
    net = Net(3, 6, 6, opset=19)
    x = stem(net)
    offsets = net.conv("x", 3, 18, name="o")
    y = net.op("DeformConv", x, net.weight(8, 8, 3, 3, fan_in=72), offsets, pads=[1] * 4)
    return tail(net, net.relu(y))


@graph("a", "b", "z")
def spatial_transformer():
    """AffineGrid from a small network, GridSample of the features."""
    net = Net(3, 6, 6, opset=20, batch=2)
    x = stem(net)
    t = net.op("Flatten", net.op("GlobalAveragePool", net.conv_bn_relu("x", 3, 6, name="b")))
    t = net.reshape(net.gemm(t, 6, 6), 2, 2, 3)
    grid = net.op("AffineGrid", t, net.ints(2, 8, 6, 6))
    return tail(net, net.op("GridSample", x, grid))


@graph("a", "z")
def resized_in_a_region():
    """tf_crop_and_resize with a region for every axis, channels included."""
    net = Net(3, 6, 6)
    roi = net.raw(np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9], np.float32))
    scales = net.raw(np.array([1, 1, 2, 2], np.float32))
    y = net.op("Resize", stem(net), roi, scales, mode="linear",
               coordinate_transformation_mode="tf_crop_and_resize")  # fmt: skip
    return tail(net, y)


@graph("a", "z")
def resized_along_two_axes():
    """Opset 18: the axes are named, sizes are two numbers."""
    net = Net(3, 6, 6, opset=18)
    y = net.op("Resize", stem(net), "", "", net.ints(9, 9), axes=[2, 3], mode="nearest",
               keep_aspect_ratio_policy="not_larger")  # fmt: skip
    return tail(net, y)


@graph("z", stays=["a"], locked="Resize")
def channels_resized():
    net = Net(3, 6, 6)
    scales = net.raw(np.array([1, 2, 1, 1], np.float32))
    return tail(net, net.op("Resize", stem(net), "", scales, mode="nearest"), 16)


@graph("a", "z")
def pooled_by_powers():
    net = Net(3, 6, 6)
    return tail(net, net.op("GlobalLpPool", net.op("LpPool", stem(net), kernel_shape=[2, 2])))


# Forms of training and of old versions.


@graph("a", "z")
def batch_norm_in_training_mode():
    """Statistics of the batch, and the running ones as outputs nobody reads."""
    net = Net(3, 6, 6)
    y = net.conv("x", 3, 8, name="a")
    stats = [net.vector(8, low=0.5, high=1.5) for _ in range(4)]
    y, _, _ = net.op("BatchNormalization", y, *stats, outputs=3, training_mode=1)
    return tail(net, net.relu(y))


@graph("a", "z")
def dropout_with_a_mask():
    net = Net(3, 6, 6)
    y, mask = net.op("Dropout", stem(net), outputs=2)
    return tail(net, net.op("Where", mask, y, net.store(np.array(0.0))))


@graph("a", "z")
def dropout_with_stored_options():
    net = Net(3, 6, 6)
    y = net.op("Dropout", stem(net), net.store(np.array(0.5)), net.raw(np.array(False)))
    return tail(net, y)


@graph("a", "z")
def left_out_inputs():
    """Clip without a minimum, Resize without a region, Slice without axes but with steps."""
    net = Net(3, 6, 6)
    y = net.op("Clip", stem(net), "", net.store(np.array(1.0)))
    y = net.op("Slice", y, net.ints(0, 0, 0, 1), net.ints(99, 99, 99, 99), "", net.ints(1, 1, 2, 1))
    return tail(net, net.op("Clip", y))


@graph("a", "z")
def clip_with_attributes():
    net = Net(3, 6, 6, opset=7, ir=3)
    y = net.op("Clip", stem(net), min=-1.0, max=1.0)
    y = net.op("Reshape", net.op("Flatten", y), net.ints(0, 8, 6, 6))
    return tail(net, net.op("Sum", y, y))


@graph("a", "b", "z")
def channels_compared_and_selected():
    net = Net(3, 6, 6)
    x, y = stem(net), net.conv("x", 3, 8, name="b")
    mask = net.op(
        "And", net.op("Greater", x, y), net.op("Not", net.op("Less", x, net.vector(8, 1, 1)))
    )
    return tail(net, net.op("Where", mask, x, y))


@graph("a", "z")
def channel_count_in_the_arithmetic():
    """Divided by √C and by the number of elements, both computed in the graph: numbers stay."""
    net = Net(3, 6, 6)
    x = stem(net)
    root = net.op("Sqrt", net.op("Cast", net.size(x, 1), to=1))
    count = net.op("Cast", net.op("Size", net.op("Gather", x, net.raw(np.array(0)), axis=0)), to=1)
    total = net.op("Div", net.op("ReduceSum", x, net.ints(2, 3)), net.op("Div", count, root))
    return tail(net, net.op("Mul", x, total))


@graph("a", "b", "z")
def reshaped_by_the_shape_of_another():
    """view_as, expand_as, zeros_like."""
    net = Net(3, 6, 6)
    x = stem(net)
    y = net.conv(x, 8, 8, 1, name="b")
    y = net.op("Reshape", net.reshape(y, 0, -1), net.op("Shape", x))
    zeros = net.op("ConstantOfShape", net.op("Shape", x))
    y = net.op("Add", net.op("Add", y, zeros), x)
    mean = net.op("Expand", net.op("GlobalAveragePool", y), net.op("Shape", y))
    return tail(net, net.op("Sub", y, mean))


@graph("a", "z")
def ranges_and_positions():
    """A positional grid made by Range and joined as two more channels."""
    net = Net(3, 6, 6, batch=1)
    x = stem(net)
    width = net.op("Squeeze", net.size(x, 3), net.ints(0))
    line = net.op("Range", net.raw(np.array(0)), width, net.raw(np.array(1)))
    line = net.op("Div", net.op("Cast", line, to=1), net.store(np.array(6.0)))
    across = net.op("Expand", net.reshape(line, 1, 1, 1, -1), net.ints(1, 1, 6, 6))
    down = net.op("Transpose", across, perm=[0, 1, 3, 2])
    return tail(net, net.op("Concat", x, across, down, axis=1), 10)


@graph("a", "z")
def mean_over_a_sequence():
    """Channels put into a sequence and joined again: nobody follows them there."""
    net = Net(3, 6, 6)
    y = net.conv_bn_relu(stem(net), 8, 6, name="s")
    parts = net.op("SplitToSequence", y, net.raw(np.array(2)), axis=1)
    y = net.op("ConcatFromSequence", parts, axis=1)
    net.declare(y, "N", 6, 6, 6)
    return tail(net, y, 6)


@graph("a", "z")
def compressed_pixels():
    """Compress leaves as many rows as its condition says: no inference knows how many."""
    net = Net(3, 6, 6)
    keep = net.raw(np.array([True, False, True, True, False, True]))
    y = net.op("Compress", stem(net), keep, axis=2)
    net.declare(y, "N", 8, 4, 6)
    return tail(net, y)


@graph("a", "b", "u", "v")
def shapes_unknown_from_here():
    """A layer behind an operator of unknown output shape: nothing is known of its pixels."""
    net = Net(3, 6, 6)
    keep = net.raw(np.array([True, False, True, True, False, True]))
    y = net.op("Compress", stem(net), keep, axis=2)
    y = net.relu(net.conv(y, 8, 6, name="u"))
    y = net.gemm(
        net.op("ReduceMean", net.relu(net.conv(y, 6, 4, name="v")), axes=[2, 3], keepdims=0), 4, 3
    )
    z = net.head(net.conv_bn_relu("x", 3, 6, name="b"), 6)
    return net.model(z, y, shapes={y: ["N", 3]})


@graph("b")
def reshaped_behind_an_unknown_size():
    """What comes after only fits the one size that the data will have."""
    net = Net(3, 6, 6)
    keep = net.raw(np.array([True, False, True, False, True, False]))
    y = net.op("Compress", stem(net), keep, axis=2)
    y = net.relu(net.conv(net.reshape(y, 0, -1, 3, 6), 8, 6, name="u"))
    y = net.gemm(
        net.op("ReduceMean", net.relu(net.conv(y, 6, 4, name="v")), axes=[2, 3], keepdims=0), 4, 3
    )
    z = net.head(net.conv_bn_relu("x", 3, 6, name="b"), 6)
    return net.model(z, y, shapes={y: ["N", 3]})


@graph("b", stays=["a"])
def channels_before_the_batch_reshaped():
    """Which channel meets which depends on the size of the batch: all have to stay."""
    net = Net(3, 6, 6)
    y = net.op("Transpose", net.op("GlobalAveragePool", stem(net)), perm=[1, 0, 2, 3])
    y = net.gemm(net.reshape(y, -1, 8), 8, 3)
    z = net.head(net.conv_bn_relu("x", 3, 6, name="b"), 6)
    return net.model(z, y, shapes={y: ["N", 3]})


@graph("a", "b")
def one_size_only_behind_a_count():
    """No second guess for what Compress leaves fits: the batch is still not a constant."""
    net = Net(3, 6, 6)
    x = stem(net)
    keep = net.raw(np.array([True, True, False, False, False, False]))
    y = net.reshape(net.op("Compress", "x", keep, axis=2), -1, 36)
    y = net.gemm(y, 36, 3)
    x = net.conv_bn_relu(net.reshape(x, -1, 8, 36, 1), 8, 6, name="b")
    return net.model(net.head(x, 6), y, shapes={y: ["K", 3]})


@graph("b")
def channels_of_unknown_number():
    """Only the data says how many channels come out; the weights behind it know."""
    net = Net(3, 6, 6)
    keep = net.op("Greater", net.op("Exp", net.vector(3)), net.store(np.array(0.0)))
    y = net.op("Compress", "x", keep, axis=1)
    y = net.op("Concat", y, net.conv(y, 3, 4, name="u"), axis=1)
    y = net.relu(net.conv(y, 7, 6, name="b"))
    return net.model(net.conv(y, 6, 2, 1))
