"""Gradients of operators that work on each element alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from onnx_esn.graph.gradients.site import NoGradientError, Rule, Site
from onnx_esn.graph.gradients.tape import Tape

Slope = Callable[[Tape, Site], str]


def _by_slope(slope: Slope) -> Rule:
    """dx = dy · slope."""
    return lambda site: site.only_first(site.tape.emit("Mul", site.dy, slope(site.tape, site)))


def _times(t: Tape, x: str, factor: float) -> str:
    return t.emit("Mul", x, t.constant(factor))


def _plus(t: Tape, x: str, term: float) -> str:
    return t.emit("Add", x, t.constant(term))


def _one_minus(t: Tape, x: str) -> str:
    return t.emit("Sub", t.constant(1.0), x)


def _relu(site: Site) -> list[str | None]:
    t = site.tape
    return site.only_first(t.where(t.emit("Greater", site.y, t.constant(0.0)), site.dy))


def _clip(site: Site) -> list[str | None]:
    """Passes between the limits; at them nothing, as for Relu at 0."""
    t = site.tape
    low, high = (site.optional(i) for i in (1, 2))
    above = t.emit("Sub", site.y, low) if low else ""
    below = t.emit("Sub", high, site.y) if high else ""
    if not above and not below:
        return site.only_first(site.dy)
    room = t.emit("Mul", above, below) if above and below else above or below
    return site.only_first(t.where(t.emit("Greater", room, t.constant(0.0)), site.dy))


def _leaky_relu(site: Site) -> list[str | None]:
    t, slope = site.tape, float(site.attrs.get("alpha", 0.01))
    above = t.emit("Greater", site.x, t.constant(0.0))
    return site.only_first(t.emit("Where", above, site.dy, _times(t, site.dy, slope)))


def _prelu(site: Site) -> list[str | None]:
    t, slope = site.tape, site.node.input[1]
    above = t.emit("Greater", site.x, t.constant(0.0))
    gradients = site.only_first(t.emit("Where", above, site.dy, t.emit("Mul", site.dy, slope)))
    if site.needs[1]:
        below = t.emit("Where", above, t.constant(0.0), t.emit("Mul", site.dy, site.x))
        gradients[1] = t.unbroadcast(below, site.shape(site.x), site.shape(slope))
    return gradients


def _elu(site: Site) -> list[str | None]:
    t, alpha = site.tape, float(site.attrs.get("alpha", 1.0))
    above = t.emit("Greater", site.x, t.constant(0.0))
    below = t.emit("Mul", site.dy, _plus(t, site.y, alpha))
    return site.only_first(t.emit("Where", above, site.dy, below))


def _selu(site: Site) -> list[str | None]:
    t = site.tape
    alpha = float(site.attrs.get("alpha", 1.67326319217681884765625))
    gamma = float(site.attrs.get("gamma", 1.05070102214813232421875))
    above = t.emit("Greater", site.x, t.constant(0.0))
    below = t.emit("Mul", site.dy, _plus(t, site.y, alpha * gamma))
    return site.only_first(t.emit("Where", above, _times(t, site.dy, gamma), below))


def _hard_sigmoid(site: Site) -> list[str | None]:
    t, alpha = site.tape, float(site.attrs.get("alpha", 0.2))
    inside = t.emit(
        "And",
        t.emit("Greater", site.y, t.constant(0.0)),
        t.emit("Less", site.y, t.constant(1.0)),
    )
    return site.only_first(t.where(inside, _times(t, site.dy, alpha)))


def _hard_swish_slope(t: Tape, site: Site) -> str:
    """1 above 3, 0 below −3, (2x + 3)/6 between."""
    inner = _times(t, _plus(t, _times(t, site.x, 2.0), 3.0), 1 / 6)
    above = t.emit("GreaterOrEqual", site.x, t.constant(3.0))
    below = t.emit("LessOrEqual", site.x, t.constant(-3.0))
    return t.emit("Where", above, t.constant(1.0), t.emit("Where", below, t.constant(0.0), inner))


def _sigmoid_slope(t: Tape, site: Site) -> str:
    return t.emit("Mul", site.y, _one_minus(t, site.y))


def _tanh_slope(t: Tape, site: Site) -> str:
    return _one_minus(t, t.emit("Mul", site.y, site.y))


def _erf_slope(t: Tape, site: Site) -> str:
    square = t.emit("Mul", site.x, site.x)
    return _times(t, t.emit("Exp", t.emit("Neg", square)), 2 / math.sqrt(math.pi))


def _gelu_slope(t: Tape, site: Site) -> str:
    """Φ(x) + x·φ(x), or the derivative of the tanh form."""
    x = site.x
    if site.attrs.get("approximate", "none") in ("none", b"none"):
        cdf = _times(t, _plus(t, t.emit("Erf", _times(t, x, math.sqrt(0.5))), 1.0), 0.5)
        bell = t.emit("Exp", _times(t, t.emit("Mul", x, x), -0.5))
        return t.emit("Add", cdf, _times(t, t.emit("Mul", x, bell), 1 / math.sqrt(2 * math.pi)))
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    square = t.emit("Mul", x, x)
    inner = _times(t, t.emit("Mul", x, _plus(t, _times(t, square, cubic), 1.0)), scale)
    tanh = t.emit("Tanh", inner)
    steep = _times(t, _plus(t, _times(t, square, 3 * cubic), 1.0), scale)
    bent = t.emit("Mul", t.emit("Mul", x, _one_minus(t, t.emit("Mul", tanh, tanh))), steep)
    return _times(t, t.emit("Add", _plus(t, tanh, 1.0), bent), 0.5)


def _swish_slope(t: Tape, site: Site) -> str:
    """σ(αx) + αx·σ(αx)(1 − σ(αx))."""
    scaled = _times(t, site.x, float(site.attrs.get("alpha", 1.0)))
    s = t.emit("Sigmoid", scaled)
    return t.emit("Add", s, t.emit("Mul", scaled, t.emit("Mul", s, _one_minus(t, s))))


def _mish_slope(t: Tape, site: Site) -> str:
    """tanh(s) + x·(1 − tanh²(s))·σ(x), with s = softplus(x)."""
    tanh = t.emit("Tanh", t.emit("Softplus", site.x))
    bent = t.emit("Mul", _one_minus(t, t.emit("Mul", tanh, tanh)), t.emit("Sigmoid", site.x))
    return t.emit("Add", tanh, t.emit("Mul", site.x, bent))


def _softsign_slope(t: Tape, site: Site) -> str:
    size = _plus(t, t.emit("Abs", site.x), 1.0)
    return t.emit("Reciprocal", t.emit("Mul", size, size))


def _pow(site: Site) -> list[str | None]:
    t, exponent = site.tape, site.value(1)
    if exponent is None or exponent.size != 1:
        raise NoGradientError("its exponent is no single number")
    p = float(exponent.reshape(()))
    power = t.emit("Pow", site.x, t.constant(p - 1.0))
    return [t.emit("Mul", site.dy, _times(t, power, p)), None]


def _both(site: Site, a: str, b: str) -> list[str | None]:
    """Gradients of two inputs that were broadcast to the output's shape."""
    whole = site.shape(site.y)
    found: list[str | None] = []
    for index, gradient in enumerate((a, b)):
        shape = site.shape(site.node.input[index])
        need = site.needs[index] and gradient
        found.append(site.tape.unbroadcast(gradient, whole, shape) if need else None)
    return found


def _add(site: Site) -> list[str | None]:
    return _both(site, site.dy, site.dy)


def _sub(site: Site) -> list[str | None]:
    return _both(site, site.dy, site.tape.emit("Neg", site.dy) if site.needs[1] else "")


def _mul(site: Site) -> list[str | None]:
    t, (a, b) = site.tape, site.node.input
    return _both(
        site,
        t.emit("Mul", site.dy, b) if site.needs[0] else "",
        t.emit("Mul", site.dy, a) if site.needs[1] else "",
    )


def _div(site: Site) -> list[str | None]:
    t, b = site.tape, site.node.input[1]
    first = t.emit("Div", site.dy, b)
    second = t.emit("Neg", t.emit("Mul", first, site.y)) if site.needs[1] else ""
    return _both(site, first if site.needs[0] else "", second)


def _sum(site: Site) -> list[str | None]:
    return _shared(site, site.dy)


def _mean(site: Site) -> list[str | None]:
    return _shared(site, _times(site.tape, site.dy, 1 / len(site.node.input)))


def _shared(site: Site, gradient: str) -> list[str | None]:
    whole = site.shape(site.y)
    return [
        site.tape.unbroadcast(gradient, whole, site.shape(name)) if need else None
        for name, need in zip(site.node.input, site.needs, strict=True)
    ]


def _extreme(site: Site) -> list[str | None]:
    """Of Min and Max: to the inputs that are the result, in equal parts where several are."""
    t, whole = site.tape, site.shape(site.y)
    one, none = t.constant(1.0), t.constant(0.0)
    chosen = [t.emit("Where", t.emit("Equal", name, site.y), one, none) for name in site.node.input]
    part = t.emit("Div", site.dy, t.emit("Sum", *chosen))
    return [
        t.unbroadcast(t.emit("Mul", part, mine), whole, site.shape(name)) if need else None
        for name, mine, need in zip(site.node.input, chosen, site.needs, strict=True)
    ]


def _where(site: Site) -> list[str | None]:
    t, (condition, a, b) = site.tape, site.node.input
    whole, none = site.shape(site.y), t.constant(0.0)
    parts = (site.dy, none), (none, site.dy)
    found: list[str | None] = [None]
    for index, (name, pair) in enumerate(zip((a, b), parts, strict=True), 1):
        gradient = t.emit("Where", condition, *pair) if site.needs[index] else ""
        found.append(t.unbroadcast(gradient, whole, site.shape(name)) if gradient else None)
    return found


def _flat(site: Site) -> list[str | None]:
    """Steps: their slope is 0 wherever there is one."""
    return [None] * len(site.node.input)


RULES: dict[str, Rule] = {
    "Abs": _by_slope(lambda t, s: t.emit("Sign", s.x)),
    "Add": _add,
    "Ceil": _flat,
    "Clip": _clip,
    "Div": _div,
    "Elu": _elu,
    "Erf": _by_slope(_erf_slope),
    "Exp": _by_slope(lambda t, s: s.y),
    "Floor": _flat,
    "Gelu": _by_slope(_gelu_slope),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _by_slope(_hard_swish_slope),
    "LeakyRelu": _leaky_relu,
    "Log": _by_slope(lambda t, s: t.emit("Reciprocal", s.x)),
    "Max": _extreme,
    "Mean": _mean,
    "Min": _extreme,
    "Mish": _by_slope(_mish_slope),
    "Mul": _mul,
    "Neg": lambda site: site.only_first(site.tape.emit("Neg", site.dy)),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": _by_slope(lambda t, s: t.emit("Neg", t.emit("Mul", s.y, s.y))),
    "Relu": _relu,
    "Round": _flat,
    "Selu": _selu,
    "Sigmoid": _by_slope(_sigmoid_slope),
    "Sign": _flat,
    "Softplus": _by_slope(lambda t, s: t.emit("Sigmoid", s.x)),
    "Softsign": _by_slope(_softsign_slope),
    "Sqrt": _by_slope(lambda t, s: t.emit("Reciprocal", _times(t, s.y, 2.0))),
    "Sub": _sub,
    "Sum": _sum,
    "Swish": _by_slope(_swish_slope),
    "Tanh": _by_slope(_tanh_slope),
    "Where": _where,
}
