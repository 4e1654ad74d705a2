"""Idioms of several operators: the blocks that networks are made of."""

from __future__ import annotations

import numpy as np

from tests.graph.random_graphs.elementwise import layer_norm, unary, with_constant
from tests.graph.random_graphs.grower import divisors
from tests.graph.random_graphs.layers import linear
from tests.graph.random_graphs.sizes import known


def layer(g, x, m, k=3, act=True):
    """Conv to m filters, perhaps an activation; the size stays."""
    c, h, w = g.image(x)
    g.used.add(x.name)
    y = g.add(g.net.conv(x.name, c, m, k, bias=g.flip()), (g.n, m, h, w))
    return g.op("Relu", [y], y.shape) if act else y


def squeeze_excite(g, x):
    """With 1 × 1 layers, or with Gemm and reshapes."""
    c, _h, _w = g.image(x)
    m = g.pick(1, 4)
    y = g.op("GlobalAveragePool", [x], (g.n, c, 1, 1))
    if g.flip():
        y = layer(g, layer(g, y, m, 1), c, 1, act=False)
    else:
        y = g.reshape(y, (g.n, c))
        for a, b in ((c, m), (m, c)):
            g.used.add(y.name)
            y = g.add(g.net.gemm(y.name, a, b), (g.n, b))
        y = g.reshape(y, (g.n, c, 1, 1))
    y = g.op(g.choose(("Sigmoid", "HardSigmoid")), [y], y.shape)
    g.op("Mul", [x, y] if g.flip() else [y, x], x.shape)


def residual(g, x):
    """x + f(x)."""
    c, _h, _w = g.image(x)
    y = layer(g, layer(g, x, g.choose((2, 4, c))), c, act=False)
    g.op("Add", [x, y], x.shape)


def dense_chain(g, x):
    """Each layer's filters joined to all before."""
    for _ in range(g.pick(2, 3)):
        y = layer(g, x, g.pick(2, 4))
        x = g.op("Concat", [x, y], (g.n, x.shape[1] + y.shape[1], *x.shape[2:]), axis=1)


def u_net(g, x):
    """Down, a layer, up by Resize or ConvTranspose, joined with what was there."""
    c, h, w = g.image(x)
    g.need(h % 2 == 0 and w % 2 == 0)
    m = g.pick(2, 6)
    y = g.op("MaxPool", [x], (g.n, c, h // 2, w // 2), kernel_shape=[2, 2], strides=[2, 2])
    y = layer(g, y, m)
    if g.flip():
        scales = g.net.raw(np.array([1, 1, 2, 2], np.float32))
        y = g.op("Resize", [y, "", scales], (g.n, m, h, w), mode="nearest")
    else:
        g.used.add(y.name)
        k = g.pick(2, 5)
        y = g.add(g.net.deconv(y.name, m, k), (g.n, k, h, w))
        m = k
    g.op("Concat", [x, y] if g.flip() else [y, x], (g.n, c + m, h, w), axis=1)


def gated_linear_unit(g, x):
    axis = g.axis(x, 2)
    n = x.shape[axis]
    g.need(n % 2 == 0)
    shape = [*x.shape[:axis], n // 2, *x.shape[axis + 1 :]]
    if g.flip():
        inputs = [x.name, g.net.ints(n // 2, n // 2)]
        g.used.add(x.name)
        u, v = (g.add(y, shape) for y in g.net.op("Split", *inputs, outputs=2, axis=axis))
    else:
        whole = g.net.size(x.name, axis)
        half = g.net.op("Div", whole, g.net.ints(2))
        zero, at = g.net.ints(0), g.net.ints(axis)
        u, v = (g.op("Slice", [x, a, b, at], shape) for a, b in ((zero, half), (half, whole)))
    g.op("Mul", [u, g.op("Sigmoid", [v], shape)], shape)


def hierarchical(g, x):
    """Res2Net: slices of the channels, each convolved with the sum of the ones before."""
    c, _h, _w = g.image(x)
    k = g.choose(d for d in divisors(c) if 2 <= d <= 4)
    names = g.net.op("Split", x.name, g.net.ints(*[c // k] * k), outputs=k, axis=1)
    g.used.add(x.name)
    parts = [g.add(n, (g.n, c // k, *x.shape[2:])) for n in names]
    outs, last = [parts[0]], None
    for part in parts[1:]:
        y = part if last is None else g.op("Add", [part, last], part.shape)
        last = layer(g, y, c // k)
        outs.append(last)
    g.op("Concat", outs, x.shape, axis=1)


def spatial_gate(g, x):
    """Mean and maximum over the channels gate the pixels."""
    _c, h, w = g.image(x)
    parts = [g.reduce(kind, x, [1]) for kind in ("ReduceMean", "ReduceMax")]
    y = g.op("Concat", parts, (g.n, 2, h, w), axis=1)
    y = layer(g, y, 1, act=False)
    g.op("Mul", [x, g.op("Sigmoid", [y], y.shape)], x.shape)


def tokens(g, x):
    """N, C, H, W → N, H·W, C."""
    c, h, w = g.image(x)
    y = g.reshape(x, (g.n, c, h * w))
    return g.op("Transpose", [y], (g.n, h * w, c), perm=[0, 2, 1])


def projection(g, x, m, bias=None):
    y = g.op("MatMul", [x, g.net.weight(x.shape[-1], m, fan_in=x.shape[-1])], (*x.shape[:-1], m))
    if bias or (bias is None and g.flip()):
        y = g.op("Add", [y, g.net.vector(m)], y.shape)
    return y


def attention(g, x):
    """Heads over the pixels: separate or joint projections, plain, in the batch or by Einsum."""
    g.need(x.rank in (3, 4) and x.shape[0] == g.n)
    t = tokens(g, x) if x.rank == 4 else x
    g.need(known(t.shape[2]))
    n, c = t.shape[1], t.shape[2]
    heads, depth = g.choose((1, 2, 3)), g.choose((2, 4))
    width = heads * depth
    if g.flip():
        joint = projection(g, t, 3 * width)
        names = g.net.op("Split", joint.name, g.net.ints(*[width] * 3), outputs=3, axis=2)
        g.used.add(joint.name)
        parts = [g.hidden(g.add(name, (g.n, n, width))) for name in names]
    else:
        parts = [projection(g, t, width) for _ in range(3)]
    if g.flip() and not g.bfloat:
        q, k, v = (g.reshape(p, (g.n, n, heads, depth)) for p in parts)
        s = g.op("Einsum", [q, k], (g.n, heads, n, n), equation="nqhd,nkhd->nhqk")
        s = g.op("Softmax", [g.op("Mul", [s, g.number(depth**-0.5)], s.shape)], s.shape, axis=-1)
        y = g.op("Einsum", [s, v], (g.n, n, heads, depth), equation="nhqk,nkhd->nqhd")
    else:
        shape, axes = (g.n, n, heads, depth), [0, 2, 1, 3]
        rows = (g.n, heads)
        split = [
            g.op("Transpose", [g.reshape(p, shape)], (*rows, n, depth), perm=axes) for p in parts
        ]
        if g.pick(0, 2) == 0:  # heads merged into the batch
            rows = (g.n * heads,)
            split = [g.reshape(p, (*rows, n, depth)) for p in split]
        q, k, v = split
        back = [*range(len(rows)), len(rows) + 1, len(rows)]
        k = g.op("Transpose", [k], (*rows, depth, n), perm=back)
        s = g.op("MatMul", [q, k], (*rows, n, n))
        s = g.op("Softmax", [g.op("Mul", [s, g.number(depth**-0.5)], s.shape)], s.shape, axis=-1)
        y = g.op("MatMul", [s, v], (*rows, n, depth))
        if len(rows) == 1:
            y = g.reshape(y, (g.n, heads, n, depth))
        y = g.op("Transpose", [y], (g.n, n, heads, depth), perm=axes)
    y = projection(g, g.reshape(y, (g.n, n, width)), c)
    g.op("Add", [t, y], t.shape)


def channel_attention(g, x):
    """Attention over channels: every pair of them."""
    c, h, w = g.image(x)
    heads = g.choose(divisors(c))
    q, k, v = (g.reshape(layer(g, x, c, 1, act=False), (g.n, heads, c // heads, h * w))
               for _ in range(3))  # fmt: skip
    k = g.op("Transpose", [k], (g.n, heads, h * w, c // heads), perm=[0, 1, 3, 2])
    s = g.op("Mul", [g.op("MatMul", [q, k], (g.n, heads, c // heads, c // heads)), g.number(0.05)],
             (g.n, heads, c // heads, c // heads))  # fmt: skip
    s = g.op("Softmax", [s], s.shape, axis=-1)
    y = g.op("MatMul", [s, v], v.shape)
    g.op("Add", [x, layer(g, g.reshape(y, x.shape), c, 1, act=False)], x.shape)


def nhwc(g, x):
    """A detour through channels-last."""
    c, h, w = g.image(x)
    y = g.op("Transpose", [x], (g.n, h, w, c), perm=[0, 2, 3, 1])
    for _ in range(g.pick(1, 2)):
        g.choose((unary, with_constant, linear, layer_norm))(g, y)
        y = g.pool[-1]
    g.op("Transpose", [y], (g.n, y.shape[3], h, w), perm=[0, 3, 1, 2])


def inverted_residual(g, x):
    """Expand, depthwise with a multiplier, project, add."""
    c, h, w = g.image(x)
    m, times = g.pick(2, 6), g.choose((1, 1, 2))
    y = layer(g, x, m, 1)
    g.used.add(y.name)
    y = g.add(g.net.conv(y.name, m, m * times, 3, group=m), (g.n, m * times, h, w))
    y = layer(g, g.op("Relu", [y], y.shape), c, 1, act=False)
    g.op("Add", [y, x], x.shape)
