"""Better codes for a quantization that is decided: rounding errors that make each other good.

Bits stay as the plan has them. Layer after layer, codes and steps are chosen for the outputs that
the float model has, given the inputs that the quantized layers before it send
(`layerwise.walk`, `numerics.compensation`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from onnx_esn.calibration import CalibrationSet, input_specs
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.numerics.quantizers import QUANTIZERS
from onnx_esn.passes.base import PassResult, Skipped
from onnx_esn.passes.layers.costs import LayerView, measured_view, view_layers
from onnx_esn.passes.layerwise.sampling import Taken
from onnx_esn.passes.layerwise.solvers import Refit, Round
from onnx_esn.passes.layerwise.statistics import WalkOptions
from onnx_esn.passes.layerwise.walk import walk
from onnx_esn.passes.quantizing.quantizable import Job, at_once, find_jobs
from onnx_esn.passes.quantizing.replay import replay
from onnx_esn.passes.quantizing.settling import BLURRED, settled
from onnx_esn.passes.quantizing.shared_codes import shared_codes
from onnx_esn.plans import LayerQuantization, QuantizationPlan


@dataclass(frozen=True)
class Compensate:
    """Carry out a quantization plan with error-compensated codes.

    `details` of the result: `compensated_layers`, `damped_layers`, and in `solver` the walk's
    options.

    Attributes:
        plan: bits and steps for the model that the pass is called with.
        images: the calibration set.
        reference: the float model whose outputs are wanted; None: the model itself.
        options: how to gather statistics.
        taken: the reference's outputs on the images, where they are known (`observe`).
    """

    plan: QuantizationPlan
    images: CalibrationSet
    reference: onnx.ModelProto | None = None
    options: WalkOptions = field(default_factory=WalkOptions)
    taken: Mapping[str, Taken] | None = None

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the quantized model, and the plan with its codes and biases.

        Raises:
            PlanError: the plan does not fit the model.
            OnnxEsnError: see `walk`.
        """
        view = self._view(model)
        jobs, skipped = find_jobs(model, view)
        entries = {entry.layer: entry for entry in self.plan.layers}
        chosen, shared = _compensable(jobs, entries)
        asked = {*chosen, *(job.name for job in shared)}
        bits_of = {name: np.asarray(entries[name].bits) for name in asked}
        solver = Round(bits_of, Refit(), QUANTIZERS[self.plan.quantizer])
        groups, waiting = at_once(model, shared)
        several, notes = self._shared(model, waiting, entries, solver)
        chosen |= {layer.name: job for job in groups for layer in job.layers}
        entries |= several
        for name in several:
            bits_of.pop(name, None)
        reference = self.reference or model
        # Layers that are not followed have their plain codes while the others are solved.
        start, _, _ = replay(model, jobs, skipped, self._with(entries, without=chosen))
        names = [*chosen, *(x for x in several if self.taken is None or x in self.taken)]
        together = [[layer.name for layer in job.layers] for job in groups]
        solutions, missed = walk(
            start, reference, self.images, solver, names, self.options, self.taken, together
        )
        for name, solution in solutions.items():
            if name in several:
                bias = tuple(float(s) for s in solution.shift)
                entries[name] = replace(entries[name], bias=bias)
                continue
            job = chosen[name]
            codes, step = solver.codes(job.name), solver.step[job.name]
            new = settled(job, entries[name], solver.quantizer, codes, step, solution.shift)
            if new is not None:
                entries[name] = new
            else:
                notes.append(Skipped(name, BLURRED))
        plan = self._with(entries)
        result, modified, bits = replay(model, jobs, skipped, plan)
        missed = [s for s in missed if s.node not in several]
        notes += [Skipped(s.node, f"rounded to nearest: {s.reason}") for s in missed]
        details: dict[str, Any] = {
            "compensated_layers": len({*solutions, *several}),
            "damped_layers": [name for name, solution in solutions.items() if solution.damped],
            "bits": bits,
        }
        return PassResult(result, modified, tuple(notes), plan, details)

    def _view(self, model: onnx.ModelProto) -> LayerView:
        """The layers; with shapes where the plan names one that nothing else shows (Einsum)."""
        view = view_layers(model, Facts(sizes={}), Constants(model))
        if {entry.layer for entry in self.plan.layers} <= {layer.name for layer in view.layers}:
            return view
        images = self.images.for_inputs(input_specs(model))
        feeds = next(images.take(1).batches(1)).feeds
        return measured_view(model, {name: value.shape for name, value in feeds.items()})

    def _shared(
        self,
        model: onnx.ModelProto,
        jobs: list[Job],
        entries: Mapping[str, LayerQuantization],
        solver: Round,
    ) -> tuple[dict[str, LayerQuantization], list[Skipped]]:
        """Codes of weights that several layers share."""
        if not jobs:
            return {}, []
        seen = self.images if self.taken is not None else self.options.views_of(self.images)
        return shared_codes(model, jobs, entries, seen, solver, self.options)

    def _with(
        self, entries: Mapping[str, LayerQuantization], without: Collection[str] = ()
    ) -> QuantizationPlan:
        """The plan with these entries."""
        names = [entry.layer for entry in self.plan.layers if entry.layer not in without]
        return replace(self.plan, layers=tuple(entries[name] for name in names))


def _compensable(
    jobs: list[Job], entries: dict[str, LayerQuantization]
) -> tuple[dict[str, Job], list[Job]]:
    """Jobs by layer name, and those of several layers; without what lies on its grid already."""
    found: dict[str, Job] = {}
    shared: list[Job] = []
    for job in jobs:
        entry = entries.get(job.name)
        if entry is None or entry.codes is not None:
            continue
        if job.weight.step is None or (job.weight.filter_bits > entry.bits).any():
            if len(job.layers) > 1:
                shared.append(job)
            else:
                found[job.name] = job
    return found, shared
