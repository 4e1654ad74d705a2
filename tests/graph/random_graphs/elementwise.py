"""Elementwise operators, normalisations, reductions, pooling."""

from __future__ import annotations

import numpy as np

from tests.graph.random_graphs.grower import divisors
from tests.graph.random_graphs.sizes import known

UNARY = (
    "Relu", "Sigmoid", "Tanh", "HardSigmoid", "LeakyRelu", "Abs", "Neg", "Softplus", "Identity",
)  # fmt: skip


def unary(g, x):
    g.op(g.choose(UNARY), [x], x.shape)


def clip(g, x):
    g.op("Clip", [x, *g.choose((("", g.number(1)), (g.number(-1), g.number(1))))], x.shape)


def prelu(g, x):
    g.need(x.rank >= 2 and known(x.shape[1]))
    slope = [x.shape[1]] + [1] * (x.rank - 2) if g.flip() else [1]
    g.op("PRelu", [x, g.net.vector(*slope)], x.shape)


def batch_norm(g, x):
    g.need(x.rank >= 2 and x.shape[0] == g.n and known(x.shape[1]))
    g.used.add(x.name)
    g.add(g.net.bn(x.name, x.shape[1]), x.shape)


def instance_norm(g, x):
    c, h, w = g.image(x)
    g.need(h * w >= 4)
    g.op("InstanceNormalization", [x, g.net.vector(c), g.net.vector(c)], x.shape)


def group_norm(g, x):
    """As exported: Reshape to groups, InstanceNormalization, Reshape back, scale and shift."""
    c, h, w = g.image(x)
    groups = g.choose(divisors(c))
    g.need(h * w >= 4)
    y = g.op("Reshape", [x, g.net.ints(0, groups, -1)], (g.n, groups, h * w * (c // groups)))
    ones, zeros = g.net.store(np.ones(groups)), g.net.store(np.zeros(groups))
    y = g.op("InstanceNormalization", [y, ones, zeros], y.shape)
    y = g.op("Reshape", [y, g.net.op("Shape", x.name)], x.shape)
    y = g.op("Mul", [y, g.net.vector(c, 1, 1)], x.shape)
    g.op("Add", [y, g.net.vector(c, 1, 1)], x.shape)


def layer_norm(g, x):
    n = x.shape[-1]
    g.need(g.net.opset >= 17 and x.rank >= 2 and known(n) and n > 1)
    g.op("LayerNormalization", [x, g.net.vector(n), g.net.vector(n)], x.shape, axis=-1)


def binary(g, x):
    y = x if g.pick(0, 9) == 0 else g.same_shape(x)
    g.op(g.choose(("Add", "Add", "Add", "Mul", "Sub", "Max")), [x, y], x.shape)


def broadcast(g, x):
    """With another tensor that broadcasts to x: gates, position masks."""

    def fits(t):
        return (
            t is not x
            and t.rank == x.rank
            and all(a in (b, 1) for a, b in zip(t.shape, x.shape, strict=True))
        )

    y = g.choose(t for t in g.pool if fits(t))
    g.op(g.choose(("Add", "Mul")), [y, x] if g.flip() else [x, y], x.shape)


def with_constant(g, x):
    """Add or multiply a constant of any shape that broadcasts."""
    shape = [d if known(d) and g.flip() else 1 for d in x.shape]
    shape = shape[g.pick(0, len(shape)) :]
    g.op(g.choose(("Add", "Mul", "Sub")), [x, g.net.vector(*shape)], x.shape)


def where(g, x):
    shape = [d if known(d) else 1 for d in x.shape]
    mask = g.net.raw(g.net.rng.integers(0, 2, shape).astype(bool))
    g.op("Where", [mask, x, g.number(0.25)], x.shape)


def fill(g, x):
    """Add or select a constant made to the shape of x."""
    g.need(g.single)
    made = g.net.op("ConstantOfShape", g.net.op("Shape", x.name))
    if g.flip():
        g.op("Add", [x, made], x.shape)
    else:
        mask = g.net.op("Greater", x.name, g.number(0))
        g.op("Where", [mask, x, made], x.shape)


def quantized(g, x):
    """QuantizeLinear and DequantizeLinear, per tensor or along an axis."""
    g.need(g.single)
    if g.flip():
        shape, attrs = [], {}
    else:
        axis = g.axis(x)
        shape, attrs = [x.shape[axis]], {"axis": axis}
    scale = g.net.store(g.net.rng.uniform(0.04, 0.06, shape))
    zero = g.net.raw(g.net.rng.integers(-9, 9, shape).astype(np.int8).reshape(shape))
    y = g.hidden(g.op("QuantizeLinear", [x, scale, zero], x.shape, **attrs))
    g.op("DequantizeLinear", [y, scale, zero], x.shape, **attrs)


def scale_by_width(g, x):
    """Divide by the square root of a channel count that is computed in the graph."""
    size = g.net.op("Cast", g.net.size(x.name, g.axis(x)), to=g.elem)
    g.op("Div", [x, g.net.op("Sqrt", size)], x.shape)


def product(g, x):
    """MatMul of two activations."""
    g.need(x.rank >= 3)
    y = g.choose(
        t
        for t in g.pool
        if t.rank == x.rank and t.shape[:-2] == x.shape[:-2] and t.shape[-1] == x.shape[-1]
    )
    perm = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    turned = g.op("Transpose", [y], [*y.shape[:-2], y.shape[-1], y.shape[-2]], perm=perm)
    y2 = g.op("MatMul", [x, turned], [*x.shape[:-1], y.shape[-2]])
    g.op("Mul", [y2, g.number(0.2)], y2.shape)


def reduce(g, x):
    g.need(x.rank >= 3)
    axes = sorted({g.choose(range(1, x.rank)), g.choose(range(1, x.rank))})
    kind = g.choose(("ReduceMean", "ReduceMax", "ReduceL2", "ReduceSum"))
    y = g.reduce(kind, x, axes, keep=g.flip())
    if kind == "ReduceSum":
        g.op("Mul", [y, g.number(0.1)], y.shape)


def softmax(g, x):
    axis = g.axis(x)
    g.op("Softmax", [x], x.shape, axis=g.signed(axis, x.rank))


def pool(g, x):
    c, h, w = g.image(x)
    kind = g.choose(("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"))
    if kind.startswith("Global"):
        g.op(kind, [x], (g.n, c, 1, 1))
        return
    g.need(h >= 2 and w >= 2)
    shape = (g.n, c, (h - 2) // 2 + 1, (w - 2) // 2 + 1)
    attrs = {"kernel_shape": [2, 2], "strides": [2, 2]}
    if kind == "MaxPool" and g.pick(0, 3) == 0:
        names = g.net.op(kind, x.name, outputs=2, **attrs)
        g.used.add(x.name)
        g.add(names[0], shape)
    else:
        g.op(kind, [x], shape, **attrs)


def resize(g, x):
    c, h, w = g.image(x)
    mode = g.choose(("nearest", "linear"))
    attrs = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    shape = (g.n, c, 2 * h, 2 * w)
    if g.flip():
        scales = g.net.raw(np.array([1, 1, 2, 2], np.float32))
        g.op("Resize", [x, "", scales], shape, **attrs)
        return
    if g.flip():  # sizes put together from the shape, as PyTorch exports interpolate(size=…)
        head = g.net.op(
            "Slice", g.net.op("Shape", x.name), g.net.ints(0), g.net.ints(2), g.net.ints(0)
        )
        tail = [
            g.net.ints(2 * d) if known(d) else g.net.op("Mul", g.net.size(x.name, a), g.net.ints(2))
            for a, d in ((2, h), (3, w))
        ]
        sizes = g.net.op("Concat", head, *tail, axis=0)
    else:
        sizes = g.net.op("Mul", g.net.op("Shape", x.name), g.net.ints(1, 1, 2, 2))
    g.op("Resize", [x, "", "", sizes], shape, **attrs)
