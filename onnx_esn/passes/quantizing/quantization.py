"""`quantize`: filter-wise integer codes for the weights of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_esn.budgets import Target, parse_target
from onnx_esn.errors import ModelError, OptionError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.weights import read_weight
from onnx_esn.numerics.esn import Integers, esn_prime
from onnx_esn.numerics.midrise import MAX_BITS
from onnx_esn.numerics.quantizers import MID_RISE, QUANTIZERS
from onnx_esn.passes.base import PassResult, Skipped
from onnx_esn.passes.layers.costs import (
    InputShape,
    LayerView,
    cost_target,
    measured_view,
    view_layers,
)
from onnx_esn.passes.quantizing.bit_choice import Choice, budget_choices, uniform_choice
from onnx_esn.passes.quantizing.policy import policy_choices
from onnx_esn.passes.quantizing.quantizable import Job, find_jobs, find_quantizable
from onnx_esn.passes.quantizing.replay import replay
from onnx_esn.plans import LayerQuantization, QuantizationPlan, load_plan
from onnx_esn.plans.bit_policy import BitPolicy, load_policy


@dataclass(frozen=True)
class Quantize:
    """Put the weights of each filter on a grid of its own, mid-rise unless told otherwise.

    Exactly one of `bits`, `target_cost`, `plan` and `policy` says how many bits a filter gets. The
    first and the last layer are quantized too. What lies on a grid of no more bits already stays
    as it is. Where that is the grid of the other quantizer, whole layers stay (one layer has one
    kind of grid), in a budget only if the model meets it as it is; the plan does not name them.

    `details` of the result: `cost_before`, `cost_after` (ESN'_d in MAC·bit, None where the input
    size is open), `target` (in MAC·bit, or None), `mean_bits` (cost_after per MAC),
    `quantized_layers`, `filters`, `pruned_filters` (those at 0 bits).

    Attributes:
        bits: 1 … 8 for every filter, 2 … 8 mid-tread.
        target_cost: ESN'_d to stay below (`1.2G`), or a percentage of the input model's (`25%`);
            0 … 8 bits per filter by Lagrangian allocation.
        plan: a plan, or the path of one, to replay.
        exclude: patterns on names of nodes or weights (* and ?); what matches stays as it is, and
            its cost counts in the budget.
        only: such patterns; if any, what matches none of them is excluded too.
        reference: the model that a percentage refers to, where that is not the input model.
        input_shape: as for `inspect`; a budget needs it where axes other than the batch are open.
        quantizer: a name in `numerics.quantizers.QUANTIZERS`: "mid-rise" or "mid-tread". A plan
            says for itself.
        policy: or else bits per layer, or the path of such; layers that it does not name stay.
        convert: whether layers on the grid of the other quantizer, which could stay, are put on
            this one's all the same.
    """

    bits: int | None = None
    target_cost: Target | str | float | None = None
    plan: QuantizationPlan | str | Path | None = None
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    reference: onnx.ModelProto | None = None
    input_shape: InputShape | None = None
    quantizer: str = MID_RISE.name
    convert: bool = False
    policy: BitPolicy | str | Path | None = None

    def __post_init__(self) -> None:
        given = [x is not None for x in (self.bits, self.target_cost, self.plan, self.policy)]
        if sum(given) != 1:
            raise OptionError("give exactly one of --bits, --target-cost, --plan and --policy")
        if self.bits is not None and (
            isinstance(self.bits, bool)
            or not isinstance(self.bits, int)
            or not 1 <= self.bits <= MAX_BITS
        ):
            raise OptionError(f"--bits must be an integer from 1 to {MAX_BITS}, not {self.bits!r}")
        if self.quantizer not in QUANTIZERS:
            known = ", ".join(QUANTIZERS)
            raise OptionError(f"quantizer {self.quantizer!r} is not known; there are: {known}")
        least = QUANTIZERS[self.quantizer].least_bits
        if self.bits is not None and self.bits < least:
            raise OptionError(
                f"--bits {self.bits} leaves the {self.quantizer} quantizer nothing but zeros; give "
                f"{least} to {MAX_BITS}, or take another quantizer"
            )
        if self.plan is not None and (self.exclude or self.only):
            raise OptionError("exclude and only do not go with a plan: edit the plan instead")
        if self.target_cost is not None:
            parse_target(self.target_cost)

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the quantized model and the plan that makes it.

        Raises:
            OptionError: a pattern matches nothing, or a budget lacks the input size.
            BudgetError: the budget is below the smallest cost that can be reached.
            PlanError: the plan is malformed or does not fit the model.
        """
        view, measured = self._view(model)
        target: float | None = None
        if self.plan is not None:
            plan = load_plan(self.plan, QuantizationPlan)
            if self.quantizer not in (plan.quantizer, MID_RISE.name):  # the default says nothing
                raise OptionError(
                    f"the plan is for the {plan.quantizer} quantizer; leave --quantizer out"
                )
            jobs, skipped = find_jobs(model, view)
        else:
            quantizer = QUANTIZERS[self.quantizer]
            jobs, skipped = find_quantizable(model, view, self.exclude, self.only)
            if self.bits is not None:
                jobs, skipped = self._without_others(jobs, skipped, self.bits)
                choices = [uniform_choice(job, self.bits, quantizer) for job in jobs]
                skipped += _narrowed(jobs, self.bits)
            elif self.policy is not None:
                policy = load_policy(self.policy)
                jobs, choices, skipped = policy_choices(jobs, skipped, policy, quantizer)
            else:
                jobs, skipped = _with_known_cost(jobs, skipped)
                assert self.target_cost is not None
                whole = self.reference or model
                target, _ = cost_target(self.target_cost, whole, input_shape=self.input_shape)
                if _cost(view, {}) <= target:
                    jobs, skipped = self._without_others(jobs, skipped, MAX_BITS)
                fixed = _cost(view, _zero_bits(jobs))
                choices = budget_choices(jobs, target, fixed, quantizer)
            plan = QuantizationPlan(_entries(view, jobs, choices), self.exclude, quantizer.name)
        result, modified, bits = replay(model, jobs, skipped, plan)
        skipped += [
            Skipped(x.name, "the plan does not name it")
            for job in jobs
            for x in job.layers
            if x.name not in bits
        ]
        details = _details(view, bits, measured, target)
        return PassResult(result, modified, tuple(skipped), plan, details)

    def _view(self, model: onnx.ModelProto) -> tuple[LayerView, bool]:
        """The layers, and whether their MACs could be counted."""
        try:
            return measured_view(model, self.input_shape), True
        except (ModelError, OptionError):
            if self.target_cost is not None or self.input_shape is not None:
                raise
        return view_layers(model, Facts(sizes={}), Constants(model)), False

    def _without_others(
        self, jobs: list[Job], skipped: list[Skipped], bits: int
    ) -> tuple[list[Job], list[Skipped]]:
        """Leave out the layers that lie on another quantizer's grid, at `bits` or fewer."""
        stay = {
            job.name: job.weight.quantizer
            for job in jobs
            if not self.convert
            and job.weight.quantizer not in ("", self.quantizer)
            and (job.weight.filter_bits <= bits).all()
        }
        notes = [
            Skipped(x.name, f"it lies on a {stay[job.name]} grid of no more bits already")
            for job in jobs
            if job.name in stay
            for x in job.layers
        ]
        return [job for job in jobs if job.name not in stay], skipped + notes


def _with_known_cost(jobs: list[Job], skipped: list[Skipped]) -> tuple[list[Job], list[Skipped]]:
    reason = "the shape of its output is unknown, so what it costs is unknown too"
    unknown = [Skipped(x.name, reason) for j in jobs if j.macs_per_filter is None for x in j.layers]
    return [j for j in jobs if j.macs_per_filter is not None], skipped + unknown


def _narrowed(jobs: list[Job], bits: int) -> list[Skipped]:
    return [
        Skipped(job.name, f"bfloat16 cannot hold {bits}-bit codes apart; {job.most_bits} bits used")
        for job in jobs
        if bits > job.most_bits
    ]


def _entries(
    view: LayerView, jobs: list[Job], choices: list[Choice]
) -> tuple[LayerQuantization, ...]:
    entries = {}
    for job, choice in zip(jobs, choices, strict=True):
        bits = tuple(int(b) for b in choice.bits)
        step = tuple(float(s) for s in choice.step)
        for layer in job.layers:
            entries[layer.name] = LayerQuantization(layer.name, bits, step)
    return tuple(entries[x.name] for x in view.layers if x.name in entries)


def _zero_bits(jobs: list[Job]) -> dict[str, Integers]:
    return {x.name: np.zeros(x.filters, np.int64) for job in jobs for x in job.layers}


def _cost(view: LayerView, bits: Mapping[str, Integers]) -> float:
    """ESN'_d with the given bits per filter; layers not named cost what they do now."""
    cost = 0.0
    for x in view.layers:
        if x.macs_per_filter is not None:
            b = bits.get(x.name)
            b = read_weight(x, view.constants).filter_bits if b is None else b
            cost += esn_prime(np.full(x.filters, x.macs_per_filter), b)
    return cost


def quantization_details(
    model: onnx.ModelProto, bits: Mapping[str, Integers], input_shape: InputShape | None
) -> dict[str, Any]:
    """The figures of a quantization that gave these bits (M,) to the layers of a model."""
    try:
        view, measured = measured_view(model, input_shape), True
    except (ModelError, OptionError):
        view, measured = view_layers(model, Facts(sizes={}), Constants(model)), False
    return _details(view, bits, measured, None)


def _details(
    view: LayerView, bits: Mapping[str, Integers], measured: bool, target: float | None
) -> dict[str, Any]:
    macs = sum(x.macs or 0 for x in view.layers)
    after = _cost(view, bits) if measured else None
    return {
        "cost_before": _cost(view, {}) if measured else None,
        "cost_after": after,
        "target": target,
        "mean_bits": after / macs if after is not None and macs else None,
        "quantized_layers": len(bits),
        "filters": sum(b.size for b in bits.values()),
        "pruned_filters": sum(int((b == 0).sum()) for b in bits.values()),
    }
