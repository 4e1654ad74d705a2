"""The budgets of channel selection: what a model costs as a function of what stays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnx_esn.errors import OptionError
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.channels.labels import Labels
from onnx_esn.graph.layers import Layer
from onnx_esn.numerics.qcqp.instance import ONE, Budget, Count, Integers, Term
from onnx_esn.passes.pruning.macs import layer_factors
from onnx_esn.passes.selection.targets import UNITS, Targets
from onnx_esn.plans.latency_model import LatencyModel, load_latency


@dataclass(frozen=True, eq=False)
class Costs:
    """Terms of each cost, and what does not depend on widths."""

    terms: Mapping[str, list[Term]]
    fixed: Mapping[str, float]

    def whole(self, name: str) -> float:
        """The cost with nothing removed."""
        return self.fixed[name] + sum(
            t.factor * _whole(t.left) * _whole(t.right) for t in self.terms[name]
        )

    def budget(self, name: str, limit: float) -> Budget:
        """A budget."""
        return Budget(UNITS[name], limit, self.terms[name], self.fixed[name])


def counted(labels: Labels, place: Integers, scale: float = 1.0) -> Count:
    """How many of these labels stay, times `scale`."""
    at = place[labels.reshape(-1)]
    classes, number = np.unique(at[at >= 0], return_counts=True)
    return Count(scale * float((at < 0).sum()), classes, scale * number.astype(np.float64))


def find_costs(analysis: Analysis, place: Integers, targets: Targets) -> Costs:
    """The costs that targets speak of.

    Args:
        analysis: the labelled model.
        place: by label, the number of its class among those that may go, or −1.
        targets: the targets.

    Raises:
        OptionError: the latency model is not of this model.
        PlanError: it cannot be read.
    """
    wanted = targets.parsed()
    terms: dict[str, list[Term]] = {name: [] for name in wanted}
    fixed = dict.fromkeys(wanted, 0.0)
    stored: set[str] = set()
    model = None if targets.model is None else load_latency(targets.model)
    if model is not None:
        _check(model, analysis)
        fixed["latency"] = 1e3 * model.rest
    for layer, factors in layer_factors(analysis):
        counts = [counted(x, place, 1 / x.size) for x in factors]
        both = (*counts, ONE, ONE)[:2]
        if "macs" in terms and layer.macs is not None:
            terms["macs"].append(Term(float(layer.macs), *both))
        if "params" in terms and layer.source not in stored:
            stored.add(layer.source)
            terms["params"].append(Term(float(layer.parameters), *both))
        out = analysis.propagation.labels.get(layer.output)
        share = ONE if out is None else counted(out, place, 1 / out.size)
        if "memory" in terms and layer.output_shape is not None:
            terms["memory"].append(Term(_elements(analysis, layer), share))
        if model is not None and layer.name in model.layers:
            terms["latency"] += _time(analysis, layer, model, share, place)
    return Costs(terms, fixed)


def _elements(analysis: Analysis, layer: Layer) -> float:
    """Elements that a layer puts out for one sample."""
    batch = next((s[0] for s in analysis.facts.sizes.values() if len(s) > 1), 1)
    return math.prod(layer.output_shape or ()) / max(batch, 1)


def _time(
    analysis: Analysis, layer: Layer, model: LatencyModel, share: Count, place: Integers
) -> list[Term]:
    """The terms of c0 + c1·n_in + c2·n_out + c3·n_in·n_out, in ms."""
    p = analysis.propagation
    read = p.groups.get(layer.index)
    if read is None:
        claims = [c for c in p.claims if (c.node, c.slot) == (layer.index, layer.slot)]
        read = next((c.labels for c in claims if c.role == "input"), None)
    n_in = _scaled(ONE if read is None else counted(read, place, 1 / read.size), layer.channels_in)
    n_out = _scaled(share, layer.filters)
    c = model.layers[layer.name]
    return [
        Term(1e3 * c.c0, ONE),
        Term(1e3 * c.c1, n_in),
        Term(1e3 * c.c2, n_out),
        Term(1e3 * c.c3, n_in, n_out),
    ]


def _scaled(count: Count, by: float) -> Count:
    return Count(count.fixed * by, count.classes, count.weights * by)


def _whole(count: Count) -> float:
    return count.fixed + float(count.weights.sum())


def _check(model: LatencyModel, analysis: Analysis) -> None:
    """Refuse a latency model that does not know a layer whose width may change."""
    first, free = analysis.first_labels, ~analysis.classes.locked
    for layer in analysis.layers:
        if layer.index not in first or layer.name in model.layers:
            continue
        of = analysis.classes.of[first[layer.index] + np.arange(layer.filters)]
        if free[of].any():
            raise OptionError(
                f"the latency model has no layer {layer.name!r}: it is of another model (profile "
                "this one), or the layer cannot be timed there (exclude it)"
            )
