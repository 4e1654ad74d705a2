"""From timings to a latency model of the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from onnx_esn.passes.base import Skipped
from onnx_esn.passes.profiling.contexts import Context
from onnx_esn.passes.profiling.kinds import Kind, LayerProfile
from onnx_esn.passes.profiling.timing import WholeTime
from onnx_esn.plans.latency_model import LatencyModel, LayerLatency

SCHEMA = "onnx-esn/profile/1"


@dataclass(frozen=True)
class Profile:
    """What `profile` found.

    Attributes:
        model: the fitted times, to be saved with `model.to_json()`.
        layers: the distinct layers.
        seconds: the whole model as measured.
        modelled: the whole model as modelled.
        spread: how far its median run is above that, relative.
        others: seconds of its other kernels, which are shared among the layers.
        skipped: layers that were not timed, whose time is in `rest`.
    """

    model: LatencyModel
    layers: tuple[LayerProfile, ...]
    seconds: float
    modelled: float
    spread: float
    others: float
    skipped: tuple[Skipped, ...]

    def to_document(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return {
            "schema": SCHEMA,
            "seconds": self.seconds,
            "modelled": self.modelled,
            "spread": self.spread,
            "others": self.others,
            "rest": self.model.rest,
            "layers": [_document(x) for x in self.layers],
            "skipped": [{"node": s.node, "reason": s.reason} for s in self.skipped],
        }


def _document(x: LayerProfile) -> dict[str, Any]:
    plain = ("op", "points", "seconds", "spread", "in_model")
    lists = {"names": list(x.names), "widths": list(x.widths), "kernel": list(x.kernel)}
    found = {key: getattr(x, key) for key in plain}
    return {**lists, **found, "r2": x.fit.r2, "error": x.fit.error}


def assemble(
    kinds: Sequence[Kind],
    contexts: Sequence[Context],
    wholes: Sequence[WholeTime],
    about: dict[str, Any],
) -> Profile:
    """Put the latency model together.

    Args:
        kinds: the timed layers.
        contexts: the whole models.
        wholes: their times.
        about: what else the model's file should say.
    """
    layers = [kind.profile(wholes) for kind in kinds]
    of = {name: x for x in layers for name in x.names}
    others, elements, fitted = [], [], []
    for around, whole in zip(contexts, wholes, strict=True):
        layers_here = {n: x.layer for n, x in around.layers.items() if n in of}
        pairs = {n: (x.channels_in, x.filters) for n, x in layers_here.items()}
        known = sum(whole.kernels.get(of[n].kernels.get(p, ""), 0.0) for n, p in pairs.items())
        others.append(whole.share * max(0.0, whole.inside - known))
        elements.append(around.elements)
        fitted.append(sum(of[n].fit(*p) for n, p in pairs.items()))
    # Where a layer is not timed, its kernels are among the others, and no width speaks of them.
    first = contexts[0]
    slope = 0.0 if first.skipped else _slope(elements, others)
    modelled = [t + slope * n for t, n in zip(fitted, elements, strict=True)]
    scale, rest = _scale_and_rest(modelled, [whole.seconds for whole in wholes])
    table = {}
    for name, x in of.items():
        own = first.layers[name].layer
        c0, c1, c2, c3 = (scale * c for c in x.fit.c)
        share = scale * slope * math.prod(own.output_shape or (0,)) / own.filters
        table[name] = LayerLatency(c0, c1, c2 + share, c3, x.fit.r2)
    return Profile(
        LatencyModel(table, rest, about),
        tuple(layers),
        wholes[0].seconds,
        scale * modelled[0] + rest,
        wholes[0].spread,
        scale * slope * elements[0],
        first.skipped,
    )


def _scale_and_rest(modelled: Sequence[float], walls: Sequence[float]) -> tuple[float, float]:
    """s and rest ≥ 0 for which s·modelled + rest is next to the wall times, relative to them."""
    m, w = np.asarray(modelled, np.float64), np.asarray(walls, np.float64)
    if len(set(modelled)) == 1:
        rest = max(0.0, float(w[0] - m[0]))  # of the model itself
        return (1.0, rest) if rest or not m[0] else (float(w[0] / m[0]), 0.0)
    found, _ = nnls(np.stack([m / w, w.max() / w], axis=1), np.ones_like(w))
    return float(found[0]), float(found[1] * w.max())


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line through the points that starts above 0 and never falls; one point: through 0."""
    scale = max(*x, 1)
    if len(set(x)) == 1:
        return float(np.mean(y)) / scale
    columns = np.stack([np.ones(len(x)), np.asarray(x, np.float64) / scale], axis=1)
    found, _ = nnls(columns, np.asarray(y, np.float64))
    return float(found[1]) / scale
