"""Gradients of QuantizeLinear and DequantizeLinear, straight through the rounding.

    q = clip(round(x/s) + z),   y = s·(q − z)

The slope of the rounding is taken to be 1; beyond the ends of the integers it is 0. For both
together ∂y/∂s = q − z − x/s within the range and q − z beyond it.

Source: Bengio et al. (2013), "Estimating or propagating gradients through stochastic neurons for
conditional computation" (straight-through); Esser et al. (2020), "Learned step size quantization",
equation 3.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto, helper

from onnx_esn.graph.gradients.site import NoGradientError, Rule, Site


def _quantize(site: Site) -> list[str | None]:
    t, x = site.tape, site.x
    s = _along(site, site.node.input[1])
    low, high = _ends(site)
    r = t.emit("Div", x, s)
    placed = r
    if site.optional(2):
        z = t.emit("Cast", _along(site, site.optional(2)), to=_float(site))
        placed = t.emit("Add", r, z)
    above = t.emit("GreaterOrEqual", placed, t.constant(low))
    below = t.emit("LessOrEqual", placed, t.constant(high))
    dr = t.where(t.emit("And", above, below), site.dy)
    dx = t.emit("Div", dr, s)
    found = site.only_first(dx)
    if site.needs[1]:
        found[1] = _summed(site, t.emit("Neg", t.emit("Mul", dx, r)))
    return found


def _dequantize(site: Site) -> list[str | None]:
    t = site.tape
    s = _along(site, site.node.input[1])
    found = site.only_first(t.emit("Mul", site.dy, s))
    if site.needs[1]:
        found[1] = _summed(site, t.emit("Div", t.emit("Mul", site.dy, site.y), s))
    return found


def _along(site: Site, name: str) -> str:
    """A scale or a zero point, broadcastable to the tensor."""
    if site.attrs.get("block_size", 0):
        raise NoGradientError("it has a scale for each block of an axis")
    shape = site.shape(name)
    if math.prod(shape) == 1:
        return site.tape.reshape(name, ())
    rank = len(site.shape(site.x))
    axis = int(site.attrs.get("axis", 1)) % rank
    return site.tape.reshape(name, (*shape, *[1] * (rank - axis - 1)))


def _summed(site: Site, x: str) -> str:
    """Over all that one scale belongs to."""
    wanted = site.shape(site.node.input[1])
    shape = site.shape(site.x)
    if math.prod(wanted) == 1:
        return site.tape.reshape(site.tape.reduce_sum(x, list(range(len(shape)))), wanted)
    axis = int(site.attrs.get("axis", 1)) % len(shape)
    return site.tape.reduce_sum(x, [i for i in range(len(shape)) if i != axis])


def _ends(site: Site) -> tuple[float, float]:
    """The least and the greatest integer of the output."""
    elem = site.tape.facts.types.get(site.y, TensorProto.UNDEFINED)
    try:
        info = np.iinfo(helper.tensor_dtype_to_np_dtype(elem))
    except (KeyError, ValueError):
        raise NoGradientError("its output is of no integer type that is known") from None
    return float(info.min), float(info.max)


def _float(site: Site) -> int:
    return int(helper.np_dtype_to_tensor_dtype(site.tape.dtype))


RULES: dict[str, Rule] = {"DequantizeLinear": _dequantize, "QuantizeLinear": _quantize}
