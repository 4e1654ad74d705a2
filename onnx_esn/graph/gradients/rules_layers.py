"""Gradients of the layers: Conv, ConvTranspose, Gemm, MatMul.

y[n, o, p] = Σ_{i, k} W[o, i, k] · x[n, i, s·p + d·k]

∂x is the transposed convolution of ∂y; at stride 1 it is written as a convolution with the
kernel turned round, for which runtimes have better kernels.
∂W[o, i, k] = Σ_{n, p} ∂y[n, o, p] · x[n, i, s·p + d·k]: one matrix product for all positions
k, and for depthwise layers a sum of products for each.
"""

from __future__ import annotations

import itertools
import math

from onnx_esn.graph.gradients.site import NoGradientError, Rule, Site
from onnx_esn.graph.gradients.tape import Tape
from onnx_esn.graph.gradients.windows import Windows, windows
from onnx_esn.graph.inputs import Shape


def _conv(site: Site) -> list[str | None]:
    x, w = site.node.input[:2]
    wanted, shape = site.shape(w), site.shape(x)
    groups = int(site.attrs.get("group", 1))
    view = windows(site.attrs, wanted[2:], shape[2:], site.shape(site.y)[2:])
    found: list[str | None] = [None] * len(site.node.input)
    if site.needs[0]:
        found[0] = data_gradient(site.tape, site.dy, w, wanted, view, groups)
    if site.needs[1]:
        whole = site.shape(site.y)
        found[1] = weight_gradient(site.tape, x, shape, site.dy, whole, view, groups)
    return _with_bias(site, found)


def _conv_transpose(site: Site) -> list[str | None]:
    """The same sums with data and gradient in each other's place."""
    t, (x, w) = site.tape, site.node.input[:2]
    shape, whole, weights = site.shape(x), site.shape(site.y), site.shape(w)
    groups = int(site.attrs.get("group", 1))
    attrs = {k: v for k, v in site.attrs.items() if k in ("strides", "dilations", "pads")}
    if site.attrs.get("auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET", b"VALID", "VALID"):
        raise NoGradientError("its pads are left to the runtime")
    if "output_shape" in site.attrs:
        raise NoGradientError("its pads follow from an output shape")
    view = windows(attrs, weights[2:], whole[2:], shape[2:])
    found: list[str | None] = [None] * len(site.node.input)
    if site.needs[0]:
        rank = view.rank
        crop = view.output_padding()  # what no window reaches takes no part
        dy = t.pad(site.dy, [0] * (rank + 2), [0, 0, *(-c for c in crop)])
        found[0] = t.emit(
            "Conv", dy, w, group=groups, strides=view.strides, dilations=view.dilations,
            pads=view.pads(), kernel_shape=view.kernel,
        )  # fmt: skip
    if site.needs[1]:
        found[1] = weight_gradient(t, site.dy, whole, x, shape, view, groups)
    return _with_bias(site, found)


def _with_bias(site: Site, found: list[str | None]) -> list[str | None]:
    if len(found) > 2 and site.needs[2]:
        axes = [i for i in range(len(site.shape(site.y))) if i != 1]
        found[2] = site.tape.reduce_sum(site.dy, axes)
    return found


def data_gradient(t: Tape, dy: str, w: str, wanted: Shape, view: Windows, groups: int) -> str:
    """∂x (N, I, *size) of a convolution with weights (O, I/g, *kernel)."""
    filters, per = wanted[:2]
    rank = view.rank
    turned_pads = [
        d * (k - 1) - b for d, k, b in zip(view.dilations, view.kernel, view.before, strict=True)
    ]
    if any(s != 1 for s in view.strides) or min(turned_pads) < 0:
        return t.emit(
            "ConvTranspose", dy, w, group=groups, strides=view.strides, dilations=view.dilations,
            pads=view.pads(), output_padding=view.output_padding(), kernel_shape=view.kernel,
        )  # fmt: skip
    split = t.reshape(w, (groups, filters // groups, per, *view.kernel))
    split = t.transpose(split, (0, 2, 1, *range(3, 3 + rank)))
    turned = t.reshape(split, (groups * per, filters // groups, *view.kernel))
    if any(k > 1 for k in view.kernel):
        axes = list(range(2, 2 + rank))
        turned = t.slice(turned, axes, [-1] * rank, [-(k + 1) for k in view.kernel], [-1] * rank)
    after = [
        n - o + d * (k - 1) - p
        for n, o, d, k, p in zip(
            view.size, view.out, view.dilations, view.kernel, turned_pads, strict=True
        )
    ]
    if min(after) < 0:
        dy = t.pad(dy, [0] * (rank + 2), [0, 0, *(min(a, 0) for a in after)])
        after = [max(a, 0) for a in after]
    return t.emit(
        "Conv", dy, turned, group=groups, dilations=view.dilations,
        pads=[*turned_pads, *after], kernel_shape=view.kernel,
    )  # fmt: skip


def weight_gradient(
    t: Tape, x: str, shape: Shape, dy: str, whole: Shape, view: Windows, groups: int
) -> str:
    """∂W (O, I/g, *kernel) from x (N, I, *size) and ∂y (N, O, *out)."""
    if all(k == 1 for k in view.kernel):
        return _pointwise_weight_gradient(t, x, shape, dy, whole, view, groups)
    samples, channels, rank = shape[0], shape[1], view.rank
    if all(s == 1 for s in view.strides) and not groups == channels == whole[1]:
        return _dense_weight_gradient(t, x, shape, dy, whole, view, groups)
    places = range(2, 2 + rank)
    # x as (I/g, g·N, *size), ∂y as g·O/g filters that read N channels each.
    split = t.reshape(t.transpose(x, (1, 0, *places)), (groups, -1, samples, *view.size))
    split = t.transpose(split, (1, 0, 2, *range(3, 3 + rank)))
    data = t.reshape(split, (channels // groups, groups * samples, *view.size))
    weights = t.transpose(dy, (1, 0, *places))
    found = t.emit(
        "Conv", data, weights, group=groups, strides=view.dilations, dilations=view.strides,
        pads=view.pads(), kernel_shape=view.out,
    )  # fmt: skip
    # Rows that no window reaches are seen by positions that the kernel does not have.
    found = t.slice(found, list(places), [0] * rank, view.kernel)
    return t.transpose(found, (1, 0, *places))


def _dense_weight_gradient(
    t: Tape, x: str, shape: Shape, dy: str, whole: Shape, view: Windows, groups: int
) -> str:
    """At stride 1: for each position of the kernel a matrix product over samples and places.

    With x and ∂y on one grid, laid out flat, what a position sees is x moved by one offset.
    """
    channels, filters, rank = shape[1], whole[1], view.rank
    reach = [d * (k - 1) for d, k in zip(view.dilations, view.kernel, strict=True)]
    grid = [o + r for o, r in zip(view.out, reach, strict=True)]
    after = [g - n - b for g, n, b in zip(grid, view.size, view.before, strict=True)]
    order = (1, 0, *range(2, 2 + rank))
    inputs = t.transpose(t.pad(x, [0, 0, *view.before], [0, 0, *after]), order)
    outputs = t.transpose(t.pad(dy, [0] * (rank + 2), [0, 0, *reach]), order)
    strides = [math.prod(grid[i + 1 :]) for i in range(rank)]
    offsets = [
        sum(k * d * s for k, d, s in zip(at, view.dilations, strides, strict=True))
        for at in itertools.product(*(range(k) for k in view.kernel))
    ]
    length = shape[0] * math.prod(grid) - offsets[-1]  # behind that ∂y is 0

    def part(flat: str, offset: int, width: int) -> str:
        cut = t.slice(flat, [1], [offset], [offset + length])
        return t.reshape(cut, (groups, width // groups, length))

    inputs = t.reshape(inputs, (channels, -1))
    along = part(t.reshape(outputs, (filters, -1)), 0, filters)
    products = [
        t.reshape(
            t.emit("MatMul", along, t.transpose(part(inputs, offset, channels), (0, 2, 1))),
            (filters, channels // groups, 1),
        )
        for offset in offsets
    ]
    joined = t.emit("Concat", *products, axis=2)
    return t.reshape(joined, (filters, channels // groups, *view.kernel))


def _pointwise_weight_gradient(
    t: Tape, x: str, shape: Shape, dy: str, whole: Shape, view: Windows, groups: int
) -> str:
    """Of a kernel with one position: a matrix product over samples and places."""
    channels, filters, rank = shape[1], whole[1], view.rank
    seen = view.seen(t, x)
    order = (1, 0, *range(2, 2 + rank))
    inputs = t.reshape(t.transpose(seen, order), (groups, channels // groups, -1))
    outputs = t.reshape(t.transpose(dy, order), (groups, filters // groups, -1))
    product = t.emit("MatMul", outputs, t.transpose(inputs, (0, 2, 1)))
    return t.reshape(product, (filters, channels // groups, *view.kernel))


def _gemm(site: Site) -> list[str | None]:
    t, (a, b) = site.tape, site.node.input[:2]
    alpha, beta = float(site.attrs.get("alpha", 1)), float(site.attrs.get("beta", 1))
    ta, tb = bool(site.attrs.get("transA", 0)), bool(site.attrs.get("transB", 0))
    found: list[str | None] = [None] * len(site.node.input)

    def product(left: str, right: str, tl: bool, tr: bool) -> str:
        return t.emit("Gemm", left, right, alpha=alpha, transA=int(tl), transB=int(tr))

    if site.needs[0]:
        found[0] = product(b, site.dy, tb, True) if ta else product(site.dy, b, False, not tb)
    if site.needs[1]:
        found[1] = product(site.dy, a, True, ta) if tb else product(a, site.dy, not ta, False)
    if len(found) > 2 and site.needs[2]:
        c = t.unbroadcast(site.dy, site.shape(site.y), site.shape(site.node.input[2]))
        found[2] = c if beta == 1 else t.emit("Mul", c, t.constant(beta))
    return found


def _matmul(site: Site) -> list[str | None]:
    t, (a, b) = site.tape, site.node.input
    sa, sb, sy = site.shape(a), site.shape(b), site.shape(site.y)
    if min(len(sa), len(sb)) < 2:
        raise NoGradientError("one of its inputs is a vector")

    def turned(x: str, rank: int) -> str:
        return t.transpose(x, (*range(rank - 2), rank - 1, rank - 2))

    found: list[str | None] = [None, None]
    if site.needs[0]:
        da = t.emit("MatMul", site.dy, turned(b, len(sb)))
        found[0] = t.unbroadcast(da, (*sy[:-2], *sa[-2:]), sa)
    if site.needs[1] and len(sb) == 2:  # one weight for all rows there are
        rows = t.reshape(a, (-1, sa[-1]))
        found[1] = t.emit("Gemm", rows, t.reshape(site.dy, (-1, sy[-1])), transA=1)
    elif site.needs[1]:
        db = t.emit("MatMul", turned(a, len(sa)), site.dy)
        found[1] = t.unbroadcast(db, (*sy[:-2], *sb[-2:]), sb)
    return found


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
