"""Gradients of operators that take many values to few: pooling, reductions, normalization."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from onnx_esn.graph.gradients.site import NoGradientError, Rule, Site
from onnx_esn.graph.gradients.windows import Windows, windows

Floats = npt.NDArray[np.float64]


def _axes(site: Site, *, index: int = 1) -> list[int]:
    rank = len(site.shape(site.x))
    given = site.attrs.get("axes")
    if given is None and len(site.node.input) > index:
        given = site.value(index)
    if given is None or not len(given):
        return [] if site.attrs.get("noop_with_empty_axes") else list(range(rank))
    return sorted(int(a) % rank for a in given)


def _spread_back(site: Site, gradient: str, axes: list[int], scale: float) -> str:
    """A gradient of reduced values, to each of the values."""
    t, shape = site.tape, site.shape(site.x)
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    if scale != 1:
        gradient = t.emit("Mul", gradient, t.constant(scale))
    return t.expand(t.reshape(gradient, kept), shape)


def _reduce_sum(site: Site) -> list[str | None]:
    return site.only_first(_spread_back(site, site.dy, _axes(site), 1.0))


def _reduce_mean(site: Site) -> list[str | None]:
    axes = _axes(site)
    count = math.prod(site.shape(site.x)[a] for a in axes)
    return site.only_first(_spread_back(site, site.dy, axes, 1 / count))


def _reduce_max(site: Site) -> list[str | None]:
    return site.only_first(_to_the_largest(site, _axes(site)))


def _global_average(site: Site) -> list[str | None]:
    axes = list(range(2, len(site.shape(site.x))))
    count = math.prod(site.shape(site.x)[2:])
    return site.only_first(_spread_back(site, site.dy, axes, 1 / count))


def _global_max(site: Site) -> list[str | None]:
    return site.only_first(_to_the_largest(site, list(range(2, len(site.shape(site.x))))))


def _to_the_largest(site: Site, axes: list[int]) -> str:
    """In equal parts where several are largest."""
    t, shape = site.tape, site.shape(site.x)
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    most = t.reshape(site.y, kept)
    chosen = t.emit("Where", t.emit("Equal", site.x, most), t.constant(1.0), t.constant(0.0))
    share = t.emit("Div", t.reshape(site.dy, kept), t.reduce_sum(chosen, axes, keepdims=True))
    return t.emit("Mul", chosen, share)


def _average_pool(site: Site) -> list[str | None]:
    """Each window's share goes back to what it saw: a transposed convolution with ones."""
    t, shape, out = site.tape, site.shape(site.x), site.shape(site.y)
    if site.attrs.get("ceil_mode"):
        raise NoGradientError("its windows end beyond the edge (ceil_mode)")
    kernel = tuple(int(k) for k in site.attrs["kernel_shape"])
    view = windows(site.attrs, kernel, shape[2:], out[2:])
    if site.attrs.get("count_include_pad") or not any(view.pads()):
        share = t.emit("Mul", site.dy, t.constant(1 / math.prod(kernel)))
    else:
        share = t.emit("Mul", site.dy, t.constant(1 / _seen(view)))
    planes = shape[0] * shape[1]
    back = t.emit(
        "ConvTranspose", t.reshape(share, (planes, 1, *out[2:])),
        t.constant(np.ones((1, 1, *kernel))), strides=view.strides, dilations=view.dilations,
        pads=view.pads(), output_padding=view.output_padding(), kernel_shape=kernel,
    )  # fmt: skip
    return site.only_first(t.reshape(back, shape))


def _seen(view: Windows) -> Floats:
    """How many inputs each window sees, (*out)."""
    counts = np.ones(())
    for i in range(view.rank):
        starts = np.arange(view.out[i]) * view.strides[i] - view.before[i]
        at = starts[:, None] + np.arange(view.kernel[i]) * view.dilations[i]
        inside = ((at >= 0) & (at < view.size[i])).sum(axis=1)
        counts = counts[..., None] * inside
    return counts


def _max_pool(site: Site) -> list[str | None]:
    """To the place that the runtime itself says was the largest."""
    t, shape = site.tape, site.shape(site.x)
    node = site.node
    if site.attrs.get("storage_order"):
        raise NoGradientError("its indices run down the columns")
    if len(node.output) < 2:
        node.output.append(f"{node.output[0]}.largest")
    elif not node.output[1]:
        node.output[1] = f"{node.output[0]}.largest"
    at = t.reshape(node.output[1], (-1,))
    flat = t.expand(t.constant(0.0), (math.prod(shape),))
    dy = t.reshape(site.dy, (-1,))
    back = t.emit("ScatterElements", flat, at, dy, axis=0, reduction="add")
    return site.only_first(t.reshape(back, shape))


def _softmax(site: Site) -> list[str | None]:
    """y·(dy − Σ dy·y)."""
    t, axis = site.tape, int(site.attrs.get("axis", -1)) % len(site.shape(site.x))
    total = t.reduce_sum(t.emit("Mul", site.dy, site.y), [axis], keepdims=True)
    return site.only_first(t.emit("Mul", site.y, t.emit("Sub", site.dy, total)))


def _log_softmax(site: Site) -> list[str | None]:
    """dy − eʸ·Σ dy."""
    t, axis = site.tape, int(site.attrs.get("axis", -1)) % len(site.shape(site.x))
    total = t.reduce_sum(site.dy, [axis], keepdims=True)
    return site.only_first(t.emit("Sub", site.dy, t.emit("Mul", t.emit("Exp", site.y), total)))


def _batchnorm(site: Site) -> list[str | None]:
    """With the statistics that it holds, it is a gain for each channel."""
    if site.attrs.get("training_mode"):
        raise NoGradientError("it takes its statistics from the batch")
    t, rank = site.tape, len(site.shape(site.x))
    scale, variance = site.value(1), site.value(4)
    assert scale is not None
    assert variance is not None
    epsilon = float(site.attrs.get("epsilon", 1e-5))
    gain = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    factor = t.constant(gain.reshape(1, -1, *[1] * (rank - 2)))
    return site.only_first(t.emit("Mul", site.dy, factor))


def _instance_norm(site: Site) -> list[str | None]:
    rank = len(site.shape(site.x))
    scale = site.tape.reshape(site.node.input[1], (1, -1, *[1] * (rank - 2)))
    return site.only_first(_normalized(site, list(range(2, rank)), scale))


def _layer_norm(site: Site) -> list[str | None]:
    rank = len(site.shape(site.x))
    axis = int(site.attrs.get("axis", -1)) % rank
    return site.only_first(_normalized(site, list(range(axis, rank)), site.node.input[1]))


def _normalized(site: Site, axes: list[int], scale: str) -> str:
    """σ⁻¹·(g − mean(g) − x̂·mean(g·x̂)), with g = dy·scale."""
    t, shape = site.tape, site.shape(site.x)
    part = t.constant(1 / math.prod(shape[a] for a in axes))

    def mean(x: str) -> str:
        return t.emit("Mul", t.reduce_sum(x, axes, keepdims=True), part)

    centred = t.emit("Sub", site.x, mean(site.x))
    variance = mean(t.emit("Mul", centred, centred))
    epsilon = t.constant(float(site.attrs.get("epsilon", 1e-5)))
    inverse = t.emit("Reciprocal", t.emit("Sqrt", t.emit("Add", variance, epsilon)))
    x_hat, g = t.emit("Mul", centred, inverse), t.emit("Mul", site.dy, scale)
    along = t.emit("Mul", x_hat, mean(t.emit("Mul", g, x_hat)))
    return t.emit("Mul", inverse, t.emit("Sub", t.emit("Sub", g, mean(g)), along))


RULES: dict[str, Rule] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batchnorm,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _log_softmax,
    "MaxPool": _max_pool,
    "ReduceMax": _reduce_max,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Softmax": _softmax,
}
