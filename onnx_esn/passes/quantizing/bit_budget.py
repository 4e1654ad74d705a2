"""Quantize to a budget when some filters get 0 bits: what they free goes back into the budget.

A channel whose filters all get 0 bits is removed afterwards, and its consumers cost less. So the
bits are allocated again for the smaller model, until nothing more drops out. The decision is a
plan for the *input* model: replaying it and removing the zero filters gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from onnx_esn.budgets import Target
from onnx_esn.graph.index_runs import unpacked
from onnx_esn.graph.rewrite.kept import KEPT_KEY
from onnx_esn.passes.base import PassResult, copied
from onnx_esn.passes.layers.costs import cost_target, total_cost
from onnx_esn.passes.pruning.prune import Prune
from onnx_esn.passes.pruning.zero_filters import RemoveZeroFilters
from onnx_esn.passes.quantizing.quantization import Quantize
from onnx_esn.plans import LayerQuantization, PruningPlan, QuantizationPlan

_ROUNDS = 6


@dataclass(frozen=True)
class QuantizeToBudget:
    """`Quantize`, with a budget met by what is left after zero filters are removed.

    Attributes:
        quantize: the pass and its options.
        input_shapes: sizes of dynamic axes, by input name.
    """

    quantize: Quantize
    input_shapes: Mapping[str, Sequence[int]] | None = None

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Quantize; the zero filters are still in the result, for `RemoveZeroFilters`."""
        first = self.quantize(model)
        if self.quantize.target_cost is None:
            return first
        shape = self.quantize.input_shape
        whole = self.quantize.reference or model
        target, _ = cost_target(self.quantize.target_cost, whole, input_shape=shape)
        # Layers on another grid that could not stay at first may not when the model is smaller.
        convert = total_cost(model, input_shape=shape) > target
        options = replace(self.quantize, target_cost=Target(target), reference=None)
        again = replace(options, convert=options.convert or convert)
        small, result, plan = _forget(model), first, None
        for _ in range(_ROUNDS):
            zero = RemoveZeroFilters(self.input_shapes)(result.model)
            if not zero.modified:
                break
            assert isinstance(zero.plan, PruningPlan)
            # The same channels leave the float model; the rest shares what they cost.
            small = Prune(plan=zero.plan, input_shapes=self.input_shapes)(small).model
            result = again(small)
            assert isinstance(result.plan, QuantizationPlan)
            plan = result.plan
        if plan is None:
            return first
        assert isinstance(first.plan, QuantizationPlan)
        full = _spread(plan, first.plan, small)
        options = replace(self.quantize, target_cost=None, plan=full, exclude=(), only=())
        final = replace(options, reference=None)(model)
        # What is left once the zero filters are removed, which is what the budget speaks of.
        reached = {k: result.details[k] for k in ("cost_after", "mean_bits")}
        details = {**final.details, "target": first.details["target"], **reached}
        return replace(final, skipped=first.skipped, details=details)


def _forget(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the record of earlier prunings, so that the record speaks of this model."""
    copy = copied(model)
    for prop in [p for p in copy.metadata_props if p.key == KEPT_KEY]:
        copy.metadata_props.remove(prop)
    return copy


def _spread(
    plan: QuantizationPlan, first: QuantizationPlan, small: onnx.ModelProto
) -> QuantizationPlan:
    """The plan of the smaller model, with 0 bits for the filters it no longer has."""
    props = {p.key: p.value for p in small.metadata_props}
    kept = {k: unpacked(v) for k, v in json.loads(props.get(KEPT_KEY, "{}")).items()}
    widths = {x.layer: len(x.bits) for x in first.layers}
    layers = []
    for x in plan.layers:
        bits, step = [0] * widths[x.layer], [0.0] * widths[x.layer]
        for at, b, s in zip(kept.get(x.layer, range(len(x.bits))), x.bits, x.step, strict=True):
            bits[at], step[at] = b, s
        layers.append(LayerQuantization(x.layer, tuple(bits), tuple(step)))
    return replace(plan, layers=tuple(layers))
