"""Branches, loops, local functions, fused operators, and operators nobody has a rule for."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.graph.random_graphs.sizes import first, known
from tests.net import Net


def inner_net(g, kind):
    """A builder of a body whose names nothing else has."""
    inner = Net(prefix=f"{kind}{len(g.net.nodes)}_", opset=g.net.opset, seed=g.pick(0, 9))
    inner.dtype = g.net.dtype
    return inner


def info(g, name, shape):
    dims = [d if known(d) else None for d in shape]
    return helper.make_tensor_value_info(name, g.elem, dims)


def if_(g, x):
    """Branches that read x: the same shape comes out, or that of a layer in each branch."""
    g.need(g.net.ir > 3)  # there, every stored tensor of a body is an input
    layered = g.flip() and x.rank == 4 and x.shape[0] == g.n and known(x.shape[1])
    m = g.pick(2, 6)
    shape = (g.n, m, *x.shape[2:]) if layered else x.shape
    bodies = {}
    for key in ("then_branch", "else_branch"):
        inner = inner_net(g, key)
        if layered:
            y = inner.conv(x.name, x.shape[1], m, g.choose((1, 3)))
        else:
            y = inner.op(g.choose(("Relu", "Sigmoid", "Neg", "Identity")), x.name)
        if g.flip():
            y = inner.op("Mul", y, inner.vector(*[d if known(d) else 1 for d in shape[1:]]))
        bodies[key] = inner.body(info(g, y, shape))
    source = g.choose(g.pool)
    if g.flip():
        total = g.net.op("Cast", g.net.op("ReduceMax", source.name, keepdims=0), to=1)
        condition = g.net.op("Greater", total, g.net.raw(np.array(0.7, np.float32)))
        g.used.add(source.name)
    else:
        condition = g.net.raw(np.array(g.flip()))
    y = g.op("If", [condition], shape, **bodies)
    g.used.add(x.name)
    g.net.declared.append(info(g, y.name, shape))


def loop(g, x):
    """A few turns over x, with a layer inside or not; what is outside may be read as well."""
    g.need(g.single and g.net.ir > 3)
    layered = g.flip() and x.rank == 4 and x.shape[0] == g.n and known(x.shape[1])
    inner = inner_net(g, "loop")
    p = inner.prefix
    inner.inputs += [
        inner.info(f"{p}i", dtype=np.int64),
        inner.info(f"{p}on", dtype=bool),
        info(g, f"{p}state", x.shape),
    ]
    going = inner.op("Identity", f"{p}on")
    y = f"{p}state"
    if layered:
        y = inner.conv(y, x.shape[1], x.shape[1])
    y = inner.op("Tanh", y)
    if g.flip():
        same = g.choose(t for t in g.pool if t.shape == x.shape)
        y = inner.op("Add", y, same.name)
        g.used.add(same.name)
    body = inner.body(inner.info(going, dtype=bool), info(g, y, x.shape))
    y = g.op("Loop", [g.net.raw(np.array(g.pick(1, 3))), "", x], x.shape, body=body)
    g.net.declared.append(info(g, y.name, x.shape))


def function(g, x):
    """A local function that is called once or twice."""
    name = f"gate{len(g.net.functions)}"
    body = [
        helper.make_node("Sigmoid", ["v"], ["s"], "sigmoid"),
        helper.make_node("Mul", ["v", "s"], ["w"], "mul"),
    ]
    g.net.functions.append(
        helper.make_function(
            "pkg", name, ["v"], ["w"], body, [helper.make_opsetid("", g.net.opset)]
        )
    )
    g.net.domains["pkg"] = 1
    for _ in range(g.pick(1, 2)):
        x = g.op(name, [x], x.shape, domain="pkg")
        g.net.declared.append(info(g, x.name, x.shape))


def fused_conv(g, x):
    """onnxruntime's Conv with an activation, and perhaps an addend."""
    g.need(g.single)
    c, h, w = g.image(x)
    m = g.pick(2, 6)
    inputs = [x, g.net.weight(m, c, 3, 3, fan_in=9 * c), g.net.vector(m)]
    if g.flip():
        inputs.append(g.choose(t for t in g.pool if t.shape == (g.n, m, h, w)))
    g.net.domains["com.microsoft"] = 1
    y = g.op("FusedConv", inputs, (g.n, m, h, w), domain="com.microsoft", pads=[1] * 4,
             kernel_shape=[3, 3], activation=g.choose(("Relu", "Sigmoid", "Tanh")))  # fmt: skip
    g.net.declared.append(info(g, y.name, y.shape))


def stranger(g, x):
    """Operators that lock what they touch, for lack of a rule or because they mix channels."""
    kind = g.choose(
        ("cumsum", "topk", "lrn", "scatter", "pick", "trilu", "onehot", "reverse", "compress")
    )
    axis = g.axis(x)
    net, n = g.net, x.shape[axis]
    if kind == "cumsum":
        g.need(g.single)
        g.op("CumSum", [x, net.raw(np.array(axis, np.int64))], x.shape)
    elif kind == "topk":
        k = g.pick(1, n)
        values, _ = net.op("TopK", x.name, net.ints(k), outputs=2, axis=axis)
        g.used.add(x.name)
        g.add(values, [*x.shape[:axis], k, *x.shape[axis + 1 :]])
    elif kind == "lrn":
        g.need(g.single)
        g.image(x)
        g.op("LRN", [x], x.shape, size=3)
    elif kind == "scatter":
        shape = [g.pick(1, d) if known(d) else 1 for d in x.shape]
        shape[axis] = 1  # no position is written twice
        index = net.raw(net.rng.integers(0, n, shape))
        g.op("ScatterElements", [x, index, net.vector(*shape)], x.shape, axis=axis)
    elif kind == "pick":
        g.need(g.single)
        g.need(all(known(d) or (d == g.n and g.batch == 2) for d in x.shape))
        full = [d if known(d) else first(d) for d in x.shape]
        shape = [d if g.flip() else g.pick(1, d) for d in full]
        shape[axis] = g.pick(1, n + 1)
        if g.flip():  # the same everywhere
            index = net.rng.integers(0, n, [d if a == axis else 1 for a, d in enumerate(shape)])
            index = np.ascontiguousarray(np.broadcast_to(index, shape))
        else:
            index = net.rng.integers(0, n, shape)
        left = [d if a == b else a for a, b, d in zip(shape, full, x.shape, strict=True)]
        left[axis] = shape[axis]
        g.op("GatherElements", [x, net.raw(index)], left, axis=axis)
    elif kind == "trilu":
        g.need(x.rank >= 2 and net.opset >= 14)
        g.op("Trilu", [x], x.shape, upper=int(g.flip()))
    elif kind == "onehot":
        g.need(g.single)
        best = net.op("ArgMax", x.name, axis=axis, keepdims=0)
        g.used.add(x.name)
        g.op("OneHot", [best, net.ints(n), net.store(np.array([0.0, 1.0]))], x.shape, axis=axis)
    elif kind == "reverse":
        g.need(x.rank >= 2 and g.batch == 2 and x.shape[0] == g.n and known(x.shape[1]))
        lengths = net.ints(*[g.pick(1, x.shape[1]) for _ in range(2)])
        g.op("ReverseSequence", [x, lengths], x.shape, batch_axis=0, time_axis=1)
    else:
        keep = np.ones(n, bool)
        keep[g.pick(0, n - 1)] = n == 1
        shape = [*x.shape[:axis], int(keep.sum()), *x.shape[axis + 1 :]]
        g.op("Compress", [x, net.raw(keep)], shape, axis=axis)


def arg_max(g, x):
    """The best position, as numbers that gate something else."""
    axis = g.axis(x, 2)
    keep = [1 if a == axis else d for a, d in enumerate(x.shape)]
    best = net_cast(g, g.net.op("ArgMax", x.name, axis=axis, keepdims=1))
    g.used.add(x.name)
    y = g.add(best, keep)
    g.op("Mul", [x, y], x.shape)


def net_cast(g, name):
    return g.net.op("Cast", name, to=g.elem if not g.single else TensorProto.FLOAT)
