"""Tiny graphs, continued: attention in hybrids; heads go as wholes, or positions in them."""

from __future__ import annotations

import numpy as np

from tests.models import graph, stem
from tests.models_blocks import tail
from tests.net import Net


def tokens_of(net, x, c, n):
    """N, C, H, W → N, H·W, C."""
    return net.op("Transpose", net.reshape(x, 0, c, n), perm=[0, 2, 1])


def softmax_product(net, q, k, v, depth):
    """softmax(q kᵀ / √d) v on the last two axes of tensors of rank four."""
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Mul", scores, net.store(np.array(depth**-0.5)))
    return net.op("MatMul", net.op("Softmax", scores, axis=-1), v)


def mean_head(net, tokens, c):
    return net.model(net.gemm(net.op("ReduceMean", tokens, axes=[1], keepdims=0), c, 3))


@graph("a", "b", "z")
def mobile_vit():
    """Pixels unfolded to patches, attention among equal positions, folded back; a shortcut."""
    net = Net(3, 4, 4)
    x = stem(net)
    y = net.conv(net.conv_bn_relu(x, 8, 8, name="b"), 8, 8, 1, name="c")
    # Unfold: (N, C, 2, 2, 2, 2) → (N·4 positions, 4 patches, C).
    y = net.reshape(
        net.op("Transpose", net.reshape(y, -1, 2, 2, 2), perm=[0, 2, 1, 3]), -1, 8, 4, 4
    )
    y = net.reshape(net.op("Transpose", y, perm=[0, 3, 2, 1]), -1, 4, 8)
    qkv = net.linear(y, 8, 24)
    parts = net.op("Split", net.op("Transpose", net.reshape(qkv, 0, 4, 3, 2, 4),
                   perm=[2, 0, 3, 1, 4]), outputs=3, axis=0)  # fmt: skip
    q, k, v = (net.op("Squeeze", p, net.ints(0)) for p in parts)
    t = net.op("Transpose", softmax_product(net, q, k, v, 4), perm=[0, 2, 1, 3])
    y = net.op("Add", y, net.linear(net.reshape(t, 0, 4, 8), 8, 8))
    # Fold.
    y = net.op("Transpose", net.reshape(y, -1, 4, 4, 8), perm=[0, 3, 2, 1])
    y = net.reshape(
        net.op("Transpose", net.reshape(y, -1, 2, 2, 2), perm=[0, 2, 1, 3]), -1, 8, 4, 4
    )
    y = net.conv_bn_relu(y, 8, 8, 1, name="d")
    return tail(net, net.conv_bn_relu(net.op("Concat", x, y, axis=1), 16, 8, name="e"))


@graph("a", "qkv", "p")
def levit():
    """Linear layers with a BatchNormalization on flattened tokens, keys narrower than values."""
    net = Net(3, 4, 4)
    x = tokens_of(net, stem(net), 8, 16)

    def linear_bn(y, c, m, name):
        y = net.op("MatMul", y, net.weight(c, m, fan_in=c), name=name)
        flat = net.bn(net.reshape(y, -1, m), m)
        return net.op("Reshape", flat, net.op("Shape", y))

    y = net.reshape(linear_bn(x, 8, 32, "qkv"), 0, 16, 2, 16)
    q, k, v = net.op("Split", y, net.ints(4, 4, 8), outputs=3, axis=3)
    q, k, v = (net.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, k, v))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Add", scores, net.vector(2, 16, 16))  # a bias for each head and distance
    y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    y = net.reshape(net.op("Transpose", y, perm=[0, 2, 1, 3]), 0, 16, 16)
    y = net.op("HardSwish", y)
    return mean_head(net, net.op("Add", x, linear_bn(y, 16, 8, "p")), 8)


@graph("a", "q", "k", "v", "z")
def cross_covariance_attention():
    """EdgeNeXt: attention over channels, q and k normalised along the pixels."""
    net = Net(3, 4, 4)
    x = tokens_of(net, stem(net), 8, 16)

    def heads(name):
        y = net.op("MatMul", x, net.weight(8, 8, fan_in=8), name=name)
        y = net.op("Add", y, net.vector(8))
        return net.op("Transpose", net.reshape(y, 0, 16, 2, 4), perm=[0, 2, 3, 1])

    q, k, v = heads("q"), heads("k"), heads("v")  # (N, heads, depth, pixels)
    q, k = (
        net.op("Div", t, net.op("Add", net.op("ReduceL2", t, axes=[-1], keepdims=1),
                                net.store(np.array(1e-3))))
        for t in (q, k)
    )  # fmt: skip
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Mul", scores, net.vector(2, 1, 1))  # a temperature for each head
    y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    y = net.reshape(net.op("Transpose", y, perm=[0, 3, 1, 2]), 0, 16, 8)
    y = net.op("Add", x, net.linear(y, 8, 8))
    y = net.reshape(net.op("Transpose", y, perm=[0, 2, 1]), 0, 8, 4, 4)
    return tail(net, y)


@graph("a", "q", "k", "v")
def multi_query_attention():
    """Two heads of queries share one key and one value."""
    net = Net(3, 4, 4)
    x = tokens_of(net, stem(net), 8, 16)
    q = net.op("MatMul", x, net.weight(8, 8, fan_in=8), name="q")
    q = net.op("Transpose", net.reshape(q, 0, 16, 2, 4), perm=[0, 2, 1, 3])
    k = net.op("MatMul", x, net.weight(8, 4, fan_in=8), name="k")
    v = net.op("MatMul", x, net.weight(8, 4, fan_in=8), name="v")
    k, v = (net.op("Unsqueeze", t, net.ints(1)) for t in (k, v))
    y = net.op("Transpose", softmax_product(net, q, k, v, 4), perm=[0, 2, 1, 3])
    return mean_head(net, net.linear(net.reshape(y, 0, 16, 8), 8, 6), 6)


@graph("a", "q", "k")
def single_head_attention_on_images():
    """Non-local block: 1 × 1 convolutions for query, key and value."""
    net = Net(3, 4, 4)
    x = stem(net)
    q, k, v = (net.reshape(net.conv(x, 8, 4, 1, name=n), 0, 4, 16) for n in "qkv")
    scores = net.op("MatMul", net.op("Transpose", q, perm=[0, 2, 1]), k)
    y = net.op("MatMul", v, net.op("Transpose", net.op("Softmax", scores, axis=-1), perm=[0, 2, 1]))
    y = net.conv(net.reshape(y, 0, 4, 4, 4), 4, 8, 1, name="p")
    return tail(net, net.op("Add", x, y))


@graph("a", "q", "k", "v")
def linear_attention():
    """softmax(q) · (softmax(k)ᵀ v): keys and values meet over the pixels."""
    net = Net(3, 4, 4)
    x = stem(net)
    q, k, v = (net.reshape(net.conv(x, 8, 8, 1, name=n), 0, 2, 4, 16) for n in "qkv")
    q, k = net.relu(q), net.op("Softmax", k, axis=-1)
    context = net.op("MatMul", k, net.op("Transpose", v, perm=[0, 1, 3, 2]))  # depth × depth
    y = net.op("MatMul", net.op("Transpose", context, perm=[0, 1, 3, 2]), q)
    return tail(net, net.op("Add", x, net.conv(net.reshape(y, 0, 8, 4, 4), 8, 8, 1)))


@graph("a", "q", "k", "v")
def attention_by_einsum():
    net = Net(3, 4, 4)
    x = tokens_of(net, stem(net), 8, 16)

    def heads(name):
        y = net.op("MatMul", x, net.weight(8, 8, fan_in=8), name=name)
        return net.reshape(y, 0, 16, 2, 4)

    q, k, v = heads("q"), heads("k"), heads("v")
    scores = net.op("Softmax", net.op("Einsum", q, k, equation="bihd,bjhd->bhij"), axis=-1)
    y = net.op("Einsum", scores, v, equation="bhij,bjhd->bihd")
    return mean_head(net, net.linear(net.reshape(y, 0, 16, 8), 8, 6), 6)


@graph("a", "p")
def attention_with_heads_in_the_batch():
    """Heads merged into the batch axis, as the functional form of PyTorch exports them."""
    net = Net(3, 4, 4, batch=2)
    x = net.op("Transpose", net.reshape(stem(net), 2, 8, 16), perm=[2, 0, 1])  # (L, N, C)
    qkv = net.linear(x, 8, 24)
    parts = net.op("Split", qkv, outputs=3, axis=2)
    q, k, v = (
        net.op("Transpose", net.reshape(t, 16, 4, 4), perm=[1, 0, 2]) for t in parts
    )  # (N · heads, L, depth)
    scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    y = net.op("Transpose", net.op("MatMul", scores, v), perm=[1, 0, 2])
    y = net.reshape(y, 32, 8)
    y = net.relu(net.gemm(y, 8, 6, name="p"))
    y = net.op("ReduceMean", net.reshape(y, 16, 2, 6), axes=[0], keepdims=0)
    return net.model(net.gemm(y, 6, 3))


@graph("a", "q")
def attention_pool():
    """CLIP's head: the mean joins the pixels as a token and asks all of them."""
    net = Net(3, 4, 4)
    x = tokens_of(net, stem(net), 8, 16)
    x = net.op("Concat", net.op("ReduceMean", x, axes=[1], keepdims=1), x, axis=1)
    x = net.op("Add", x, net.vector(1, 17, 8))
    first = net.op("Slice", x, net.ints(0), net.ints(1), net.ints(1))

    def heads(t, n, name):
        y = net.op("MatMul", t, net.weight(8, 8, fan_in=8), name=name)
        y = net.op("Add", y, net.vector(8))
        return net.op("Transpose", net.reshape(y, 0, n, 2, 4), perm=[0, 2, 1, 3])

    y = softmax_product(net, heads(first, 1, "q"), heads(x, 17, "k"), heads(x, 17, "v"), 4)
    y = net.reshape(net.op("Transpose", y, perm=[0, 2, 1, 3]), 0, 8)
    return net.model(net.gemm(y, 8, 3))


@graph("b", stays=["a"], locked="LayerNormalization")
def transformer_block_behind_a_stem():
    """Pre-norm attention and MLP: the stream stays, the hidden layer of the MLP shrinks."""
    net = Net(3, 4, 4)
    x = tokens_of(net, net.conv("x", 3, 8, name="a"), 8, 16)
    y = net.op("LayerNormalization", x, net.vector(8), net.vector(8))
    qkv = net.reshape(net.linear(y, 8, 24), 0, 16, 3, 2, 4)
    qkv = net.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    q, k, v = (net.op("Gather", qkv, net.raw(np.array(i)), axis=0) for i in range(3))
    t = net.op("Transpose", softmax_product(net, q, k, v, 4), perm=[0, 2, 1, 3])
    x = net.op("Add", x, net.linear(net.reshape(t, 0, 16, 8), 8, 8))
    y = net.op("LayerNormalization", x, net.vector(8), net.vector(8))
    y = net.op("Add", net.op("MatMul", y, net.weight(8, 12, fan_in=8), name="b"), net.vector(12))
    y = net.op("Mul", y, net.op("Sigmoid", y))
    return mean_head(net, net.op("Add", x, net.linear(y, 12, 8)), 8)


@graph("a", "b")
def window_partition():
    """Swin: pixels cut into windows and put back."""
    net = Net(3, 4, 4)
    x = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])  # (N, H, W, C)
    y = net.op("Transpose", net.reshape(x, -1, 2, 2, 2, 2, 8), perm=[0, 1, 3, 2, 4, 5])
    y = net.reshape(y, -1, 4, 8)
    y = net.op("Add", net.op("MatMul", y, net.weight(8, 10, fan_in=8), name="b"), net.vector(10))
    y = net.relu(y)
    y = net.op("Transpose", net.reshape(y, -1, 2, 2, 2, 2, 10), perm=[0, 1, 3, 2, 4, 5])
    y = net.op("Transpose", net.reshape(y, -1, 4, 4, 10), perm=[0, 3, 1, 2])
    return tail(net, y, 10)


@graph("a", "b")
def patch_merging():
    """Swin: four strided slices of channels-last pixels, joined, normalised, halved."""
    net = Net(3, 4, 4)
    x = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])
    ends, axes, steps = net.ints(99, 99), net.ints(1, 2), net.ints(2, 2)
    parts = [
        net.op("Slice", x, net.ints(i, j), ends, axes, steps) for j in range(2) for i in range(2)
    ]
    y = net.op("MatMul", net.op("Concat", *parts, axis=-1), net.weight(32, 10, fan_in=32), name="b")
    return tail(net, net.op("Transpose", net.relu(y), perm=[0, 3, 1, 2]), 10)


@graph("a", "b")
def rolled_windows():
    """Swin: a cyclic shift by two slices and a Concat."""
    net = Net(3, 4, 4)
    x = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])
    tail_, head = (
        net.op("Slice", x, net.ints(s), net.ints(e), net.ints(1)) for s, e in ((1, 99), (0, 1))
    )
    y = net.op("Concat", tail_, head, axis=1)
    y = net.op("Add", x, y)
    y = net.op("MatMul", y, net.weight(8, 10, fan_in=8), name="b")
    return tail(net, net.op("Transpose", net.relu(y), perm=[0, 3, 1, 2]), 10)
