"""Layers with weights, and the ways in which files store a weight."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.graph.random_graphs.grower import divisors
from tests.graph.random_graphs.sizes import known


def window(g, d, k, stride, dilation, pads):
    """Size of an axis after a window went over it."""
    span = (k - 1) * dilation + 1
    padded = d + sum(pads)
    g.need(padded >= span)
    return (padded - span) // stride + 1


def conv(g, x):
    c, h, w = g.image(x)
    group = g.choose([*divisors(c), 1, 1, 1])
    m = g.pick(1, max(1, 12 // group)) * group
    k, stride, dilation = g.pick(1, 3), g.choose((1, 1, 2)), g.choose((1, 1, 2))
    attrs = {"strides": [stride] * 2, "dilations": [dilation] * 2}
    if dilation == 1 and g.pick(0, 5) == 0:
        attrs["auto_pad"] = g.choose(("SAME_UPPER", "SAME_LOWER"))
        oh, ow = (-(-d // stride) for d in (h, w))
    else:
        pads = [g.pick(0, k // 2) for _ in range(4)]
        attrs["pads"] = pads
        oh = window(g, h, k, stride, dilation, pads[0::2])
        ow = window(g, w, k, stride, dilation, pads[1::2])
    g.used.add(x.name)
    g.add(g.net.conv(x.name, c, m, k, group=group, bias=g.flip(), **attrs), (g.n, m, oh, ow))


def plain_conv(g, x):
    """The everyday layer: 3 × 3 or 1 × 1, same size, then perhaps BatchNorm and ReLU."""
    c, h, w = g.image(x)
    m = g.choose((2, 4, 6, 8, c))
    g.used.add(x.name)
    y = g.add(g.net.conv(x.name, c, m, g.choose((1, 3)), bias=g.flip()), (g.n, m, h, w))
    if g.flip() and not g.bfloat:
        g.used.add(y.name)
        y = g.add(g.net.bn(y.name, m), y.shape)
    if g.flip():
        g.op(g.choose(("Relu", "Sigmoid", "Tanh")), [y], y.shape)


def depthwise(g, x):
    c, h, w = g.image(x)
    m = c * g.choose((1, 1, 2, 3))
    g.used.add(x.name)
    g.add(g.net.conv(x.name, c, m, 3, group=c, bias=g.flip()), (g.n, m, h, w))


def conv_1d(g, x):
    g.need(x.rank == 3 and x.shape[0] == g.n and known(x.shape[1]) and x.shape[2] >= 3)
    m = g.pick(2, 8)
    g.used.add(x.name)
    g.add(g.net.conv(x.name, x.shape[1], m, 3, rank=1, bias=g.flip()), (g.n, m, x.shape[2]))


def deconv(g, x):
    c, h, w = g.image(x)
    group = g.choose([*divisors(c), 1, 1]) if g.single else 1  # onnxruntime has it in this type
    m = group * g.pick(1, max(1, 8 // group))
    k, stride = g.pick(1, 3), g.pick(1, 2)
    pad = g.pick(0, (k - 1) // 2)
    extra = g.pick(0, stride - 1)
    size = [(d - 1) * stride + k - 2 * pad + extra for d in (h, w)]
    g.need(all(d >= 1 for d in size))
    g.used.add(x.name)
    name = g.net.deconv(
        x.name, c, m, k, group=group, bias=g.flip(), strides=[stride] * 2, pads=[pad] * 4,
        output_padding=[extra] * 2,
    )  # fmt: skip
    g.add(name, (g.n, m, *size))


def gemm(g, x):
    g.need(x.rank == 2 and x.shape[0] == g.n and known(x.shape[1]))
    n, m = x.shape[1], g.pick(2, 10)
    g.used.add(x.name)
    name = g.net.gemm(
        x.name, n, m, bias=g.flip(), alpha=g.choose((1.0, 0.5)), beta=g.choose((1.0, 2.0))
    )
    g.add(name, (g.n, m))


def linear(g, x):
    g.need(x.rank >= 2 and known(x.shape[-1]))
    m = g.pick(1, 8)
    w = stored(g, g.net.rng.normal(size=(x.shape[-1], m)) / x.shape[-1] ** 0.5)
    y = g.op("MatMul", [x, w], [*x.shape[:-1], m])
    if g.flip():
        g.op("Add", [g.net.vector(m), y], y.shape)


def linear_left(g, x):
    """A weight on the left mixes the axis before the last."""
    g.need(x.rank >= 3 and known(x.shape[-2]))
    m = g.pick(1, 8)
    w = g.net.weight(m, x.shape[-2], fan_in=x.shape[-2])
    g.op("MatMul", [w, x], [*x.shape[:-2], m, x.shape[-1]])


def einsum(g, x):
    """A weight contracts, or is multiplied along, one axis; the letters in any order."""
    g.need(not g.bfloat)
    axis = g.axis(x)
    letters = g.random.sample("abcdefgh", x.rank)
    k, m = x.shape[axis], g.pick(1, 6)
    out, shape = list(letters), list(x.shape)
    if g.pick(0, 3) == 0:
        operands, weight = [letters[axis]], g.net.vector(k)
    else:
        out[axis], shape[axis] = "z", m
        turned = g.flip()
        operands = ["z", letters[axis]] if turned else [letters[axis], "z"]
        weight = g.net.weight(*((m, k) if turned else (k, m)), fan_in=k)
    if g.flip():
        perm = g.random.sample(range(x.rank), x.rank)
        out, shape = [out[p] for p in perm], [shape[p] for p in perm]
    terms = ["".join(letters), "".join(operands)]
    names = [x, weight]
    if g.flip():
        terms, names = terms[::-1], names[::-1]
    g.op("Einsum", names, shape, equation=f"{','.join(terms)}->{''.join(out)}")


def twice(g, x):
    """One Conv weight on two tensors."""
    c, _h, _w = g.image(x)
    y = g.choose(t for t in g.pool if t.rank == 4 and t.shape[:2] == x.shape[:2])
    m = g.pick(2, 6)
    weight, bias = g.net.weight(m, c, 1, 1, fan_in=c), g.net.vector(m)
    for t in (x, y):
        g.op("Conv", [t, weight, bias], (g.n, m, *t.shape[2:]), kernel_shape=[1, 1])


def tied(g, x):
    """A weight and its transpose, as in an autoencoder."""
    g.need(x.rank == 2 and x.shape[0] == g.n and known(x.shape[1]))
    m = g.pick(2, 6)
    weight = g.net.weight(m, x.shape[1], fan_in=x.shape[1])
    y = g.op("Gemm", [x, weight], (g.n, m), transB=1)
    g.op("Gemm", [g.op("Relu", [y], y.shape), weight], x.shape)


def indirect(g, x):
    """A Conv whose weight and bias come through other nodes."""
    c, h, w = g.image(x)
    group = g.choose([*divisors(c), 1, 1, 1])
    m = group * g.pick(1, 4)
    k = g.choose((1, 3))
    scale = (c // group * k * k) ** -0.5
    weight = stored(g, g.net.rng.normal(size=(m, c // group, k, k)) * scale)
    inputs = [x, weight]
    if g.flip():
        inputs.append(stored(g, g.net.rng.uniform(-0.5, 0.5, size=m)))
    g.op("Conv", inputs, (g.n, m, h, w), kernel_shape=[k, k], pads=[k // 2] * 4, group=group)


def stored(g, value, depth=0):
    """A constant, through any of the nodes that exporters put before one."""
    net = g.net
    kinds = ["plain", "plain", "constant", "identity", "transpose", "reshape"]
    if g.single:
        kinds += ["cast", "quantized", "quantized", "scaled"]
    kind = g.choose(kinds) if depth < 2 else "plain"
    if kind == "constant":
        return net.op("Constant", value=numpy_helper.from_array(value.astype(g.dtype)))
    if kind == "identity":
        return net.op("Identity", stored(g, value, depth + 1))
    if kind == "transpose":
        perm = g.random.sample(range(value.ndim), value.ndim)
        turned = np.ascontiguousarray(value.transpose(perm))
        return net.op(
            "Transpose", stored(g, turned, depth + 1), perm=[int(p) for p in np.argsort(perm)]
        )
    if kind == "reshape":
        flat = value.reshape(g.choose(([-1], [value.shape[0], -1], [1, *value.shape])))
        return net.reshape(stored(g, flat, depth + 1), *value.shape)
    if kind == "cast":
        return net.op("Cast", net.raw(value.astype(np.float16)), to=TensorProto.FLOAT)
    if kind == "quantized":
        return dequantized(g, value)
    if kind == "scaled":
        factor = [d if g.flip() else 1 for d in value.shape]
        return net.op("Mul", stored(g, value, depth + 1), net.vector(*factor, low=0.5, high=1.5))
    return net.store(value)


def dequantized(g, value):
    """Integers with a scale for all, for each slice of an axis, or for each block of one."""
    net = g.net
    axis = g.choose(range(value.ndim))
    n = value.shape[axis]
    attrs, shape = {"axis": axis}, [n]
    kind = g.pick(0, 2)
    if kind == 0:
        attrs, shape = {}, []
    elif kind == 1 and net.opset >= 21 and value.size > n > 1:
        size = g.choose(divisors(n)[:-1])
        attrs["block_size"] = size
        shape = [n // size if a == axis else d for a, d in enumerate(value.shape)]
    span = np.abs(value).max() / 100
    scale = net.store(net.rng.uniform(0.5, 1.5, shape) * span)
    whole = net.raw(np.round(value / span).clip(-120, 120).astype(np.int8))
    inputs = [whole, scale]
    if g.flip():
        inputs.append(net.raw(net.rng.integers(-3, 3, shape).astype(np.int8).reshape(shape)))
    return net.op("DequantizeLinear", *inputs, **attrs)
