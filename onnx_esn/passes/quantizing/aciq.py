"""ACIQ, the analytical post-training quantization that the ESN paper compares itself with.

Per filter: a clipping value from closed form, a number of bits by the 2/3 power of the range, codes
by plain rounding, then the mean and the norm of the float weights given back. No images are used.
The correction of the mean shifts a filter off the plain grid; see `numerics.shifted_grid` for how
such weights are stored and read. Bits are counted of the codes; the shift, one number per filter,
costs none, as in the paper.

Source: see `numerics.aciq` and `numerics.aciq_allocation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_esn.budgets import Target, parse_target
from onnx_esn.errors import ModelError, OptionError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.number_formats import EPSILON
from onnx_esn.graph.weights import read_weight
from onnx_esn.numerics.aciq import PRIORS
from onnx_esn.numerics.esn import Integers, esn_prime, filter_bits
from onnx_esn.numerics.quantizers import MID_RISE, QUANTIZERS, Quantizer
from onnx_esn.numerics.shifted_grid import LEAST_PRECISE, ShiftedGrid
from onnx_esn.passes.base import PassResult, Skipped
from onnx_esn.passes.layers.costs import (
    InputShape,
    LayerView,
    cost_target,
    measured_view,
    view_layers,
)
from onnx_esn.passes.quantizing.aciq_filters import budget_bits, mean_bits, quantized_filters
from onnx_esn.passes.quantizing.quantizable import Job, find_quantizable
from onnx_esn.passes.quantizing.quantization import Quantize, quantization_details
from onnx_esn.passes.quantizing.replay import replay
from onnx_esn.plans import LayerQuantization, QuantizationPlan, encode_codes


@dataclass(frozen=True)
class Aciq:
    """Quantize with analytical clipping, bit allocation and bias correction.

    `details` of the result: those of `Quantize`, and `priors`, how many filters each clipping was
    chosen for.

    Attributes:
        bits: mean bits of the filters of each layer, met from below; no filter has more than 8.
        target_cost: or else the ESN'_d to stay below, as for `Quantize`.
        exclude, only, reference, input_shape: as for `Quantize`.
        quantizer: "mid-rise": 2^b levels in the middle of equal regions, as the paper derives it;
            "mid-tread": 2^b − 1 levels with one at the mean.
    """

    bits: int | None = None
    target_cost: Target | str | float | None = None
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    reference: onnx.ModelProto | None = None
    input_shape: InputShape | None = None
    quantizer: str = MID_RISE.name

    def __post_init__(self) -> None:
        # What `Quantize` refuses is refused here.
        Quantize(bits=self.bits, target_cost=self.target_cost, quantizer=self.quantizer)
        if self.target_cost is not None:
            parse_target(self.target_cost)

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the quantized model and the plan that makes it.

        Raises:
            OptionError: a pattern matches nothing, or a budget lacks the input size.
            BudgetError: the budget is below the smallest cost that can be reached.
        """
        view = self._view(model)
        jobs, skipped = find_quantizable(model, view, self.exclude, self.only)
        jobs, skipped = self._floats(jobs, skipped)
        quantizer = QUANTIZERS[self.quantizer]
        bits, target = self._bits(model, view, jobs, quantizer)
        entries, priors = [], np.zeros(len(PRIORS), dtype=np.int64)
        for job, b in zip(jobs, bits, strict=True):
            grid, used = quantized_filters(job, b, quantizer)
            priors += np.bincount(used, minlength=len(PRIORS))
            entries += [_entry(layer.name, grid) for layer in job.layers]
            if EPSILON[job.weight.type] > LEAST_PRECISE:
                reason = f"{job.weight.type_name} holds no shift; only the norm is corrected"
                skipped += [Skipped(layer.name, reason) for layer in job.layers]
        order = {layer.name: i for i, layer in enumerate(view.layers)}
        entries.sort(key=lambda entry: order[entry.layer])
        plan = QuantizationPlan(tuple(entries), self.exclude)
        result, modified, found = replay(model, jobs, skipped, plan)
        details = quantization_details(model, found, self.input_shape)
        details |= {"target": target, "priors": dict(zip(PRIORS, priors.tolist(), strict=True))}
        return PassResult(result, modified, tuple(skipped), plan, details)

    def _view(self, model: onnx.ModelProto) -> LayerView:
        try:
            return measured_view(model, self.input_shape)
        except (ModelError, OptionError):
            if self.target_cost is not None or self.input_shape is not None:
                raise
        return view_layers(model, Facts(sizes={}), Constants(model))

    def _floats(
        self, jobs: Sequence[Job], skipped: list[Skipped]
    ) -> tuple[list[Job], list[Skipped]]:
        """Leave out what lies on a grid already, and for a budget what has no known cost."""
        left = []
        for job in jobs:
            if job.weight.counted is not None:
                reason = "its weights lie on a grid already"
            elif self.target_cost is not None and job.macs_per_filter is None:
                reason = "the shape of its output is unknown, so what it costs is unknown too"
            else:
                left.append(job)
                continue
            skipped = skipped + [Skipped(layer.name, reason) for layer in job.layers]
        return left, skipped

    def _bits(
        self, model: onnx.ModelProto, view: LayerView, jobs: Sequence[Job], quantizer: Quantizer
    ) -> tuple[list[Integers], float | None]:
        """Bits (M,) of each job, and the target in MAC·bit if there is one."""
        if self.target_cost is None:
            assert self.bits is not None
            return [mean_bits(job, self.bits, quantizer) for job in jobs], None
        whole = self.reference or model
        target, _ = cost_target(self.target_cost, whole, input_shape=self.input_shape)
        done = {layer.name for job in jobs for layer in job.layers}
        others = sum(
            esn_prime([x.macs_per_filter] * x.filters, read_weight(x, view.constants).filter_bits)
            for x in view.layers
            if x.name not in done and x.macs_per_filter is not None
        )
        return budget_bits(jobs, target, others, quantizer), target


def _entry(name: str, grid: ShiftedGrid) -> LayerQuantization:
    bits = tuple(int(b) for b in filter_bits(grid.codes))
    step = tuple(float(s) for s in grid.step)
    offset = tuple(float(o) for o in grid.offset) if grid.offset.any() else None
    return LayerQuantization(name, bits, step, encode_codes(grid.codes), offset=offset)
