"""Learn the codes, steps and biases of a quantized model, its bits given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OperationError
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.numerics.learning.intervals import Intervals, intervals
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.quantizers import QUANTIZERS, Quantizer
from onnx_esn.passes.activations.quantizing import QuantizeActivations
from onnx_esn.passes.base import PassResult, Skipped
from onnx_esn.passes.layers.costs import view_layers
from onnx_esn.passes.learning.activation_intervals import quantized_student
from onnx_esn.passes.learning.bit_schedule import descending
from onnx_esn.passes.learning.judging import judge
from onnx_esn.passes.learning.learnable import learnable
from onnx_esn.passes.learning.options import LearnOptions
from onnx_esn.passes.learning.student import make_student
from onnx_esn.passes.learning.teaching import Teacher
from onnx_esn.passes.quantizing.quantizable import Job, find_jobs
from onnx_esn.passes.quantizing.replay import replay
from onnx_esn.passes.quantizing.settling import settled
from onnx_esn.plans import ActivationRanges, LayerQuantization, QuantizationPlan, decode_codes

RATE = 0.002


@dataclass(frozen=True)
class LearnQuantization:
    """Start from a plan, such as compensated rounding makes, and learn from there.

    `details` of the result: `learned_layers`, `epochs`, `losses` (see `Taught`),
    those of `judge`, `bits` by layer.

    Attributes:
        plan: for the model that the pass is called with.
        images: to learn from.
        held: images that judge, best such that the plan does not know either; None: what was
            learned is kept as it is.
        reference: the float model whose outputs are wanted; None: the model itself.
        options: how to learn.
        stops: after how many epochs to stop, see `Teacher`.
        activations: how the activations will be quantized: then their ranges are learned as well,
            and the plan has them; None: they stay float.
    """

    plan: QuantizationPlan
    images: CalibrationSet
    held: CalibrationSet | None = None
    reference: onnx.ModelProto | None = None
    options: LearnOptions = field(default_factory=LearnOptions)
    stops: Mapping[str, int] | None = None
    activations: QuantizeActivations | None = None

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the quantized model, and the plan with what was learned.

        Where that does not agree better on held-out images, the plan stays as it was.

        Raises:
            PlanError: the plan does not fit the model.
            OperationError: nothing can be learned, or a model does not run.
            VerificationError: a loss is not finite.
        """
        reference = self.reference or model
        jobs, skipped = find_jobs(model, view_layers(model, Facts(sizes={}), Constants(model)))
        start, _, bits = replay(model, jobs, skipped, self.plan)
        entries = {entry.layer: entry for entry in self.plan.layers}
        planned = [job for job in jobs if job.name in entries]
        layers, notes = learnable(start, planned)
        if not layers:
            raise OperationError("no layer can be learned; see what was skipped")
        by_name = {job.name: job for job in planned}
        quantizer = QUANTIZERS[self.plan.quantizer]
        student, learnt = make_student(start, list(layers.values()))
        activations = None
        if self.activations is not None:
            activations = quantized_student(self.activations, start, student)
        own = {n: _start(by_name[n], entries[n], quantizer) for n in learnt}
        weights = {n: np.asarray(by_name[n].weight.W, np.float64) for n in learnt}
        shifts: dict[str, Floats] = {}
        for learned, last in descending(own, weights, self.options.start_bits):
            if learned is not own and not shifts:  # wide codes need no biases of narrow ones
                shifts = {n: -_bias(entries[n]) for n in learnt}
            held, stops = (self.held, self.stops) if last else (None, None)
            taught = Teacher(
                reference, student, learnt, learned, self.images, held, self.options, RATE, stops,
                activations, shifts,
            ).run()  # fmt: skip
        for name, found in learned.items():
            old = entries[name]
            shift = taught.shifts[name] + _bias(old)
            new = settled(by_name[name], old, quantizer, found.codes(), found.step, shift)
            if new is None:
                notes.append(Skipped(name, "not learned: its type cannot hold the codes apart"))
            else:
                entries[name] = new
        plan = replace(self.plan, layers=tuple(entries[x.layer] for x in self.plan.layers))
        result, modified, new_bits = replay(model, jobs, skipped, plan)
        if activations is not None:
            plan = replace(plan, activations=activations.ranges())
        verdict = judge(
            reference,
            self._deployed(start, None if activations is None else activations.first_ranges()),
            self._deployed(result, plan.activations),
            self.held,
            self.options.threads,
        )
        if not verdict["accepted"]:
            result, plan, new_bits = start, self.plan, bits
        details = {**taught.details(self.options, verdict), "bits": new_bits}
        return PassResult(result, modified, (*notes, *taught.notes), plan, details)

    def _deployed(self, model: onnx.ModelProto, ranges: ActivationRanges | None) -> onnx.ModelProto:
        """The model as it will run: with its activations quantized, where they are to be."""
        if self.activations is None or ranges is None:
            return model
        return replace(self.activations, ranges=ranges.by_tensor())(model).model


def _bias(entry: LayerQuantization) -> Floats:
    """(M,) added to the layer's bias."""
    return np.zeros(len(entry.bits)) if entry.bias is None else np.asarray(entry.bias)


def _start(job: Job, entry: LayerQuantization, quantizer: Quantizer) -> Intervals:
    W, step, bits = job.weight.W, np.asarray(entry.step), np.asarray(entry.bits)
    if entry.codes is None:
        codes = quantizer.encode(W, step, bits)
    else:
        codes = decode_codes(entry.codes, W.shape)
    return intervals(W, codes, step, bits, quantizer)
