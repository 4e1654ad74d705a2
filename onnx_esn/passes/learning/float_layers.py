"""Fine-tune float weights, such as those of a pruned model, towards the float model's outputs."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.errors import OperationError
from onnx_esn.formats.weight_writing import WeightWriter
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.number_formats import round_to
from onnx_esn.numerics.learning.float_weights import FloatWeights
from onnx_esn.passes.base import PassResult, Skipped, copied
from onnx_esn.passes.layers.costs import view_layers
from onnx_esn.passes.layers.patterns import left_out
from onnx_esn.passes.learning.judging import judge, split_to_judge
from onnx_esn.passes.learning.learnable import learnable
from onnx_esn.passes.learning.options import LearnOptions
from onnx_esn.passes.learning.student import make_student
from onnx_esn.passes.learning.teaching import Teacher
from onnx_esn.passes.quantizing.quantizable import find_jobs
from onnx_esn.passes.quantizing.shifting import shift_outputs

RATE = 0.005


@dataclass(frozen=True)
class LearnWeights:
    """Fine-tune the float layers of a compressed model.

    Layers on a grid, with shared or computed weights stay as they are. `details` of the result:
    `learned_layers`, `epochs`, `losses` (see `Taught`), those of `judge`.

    Attributes:
        images: the calibration set.
        reference: the model that this one was made from, in standard form.
        exclude, only: patterns on names of nodes and weights, as for `Prune`.
        options: how to learn.
    """

    images: CalibrationSet
    reference: onnx.ModelProto
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    options: LearnOptions = field(default_factory=LearnOptions)

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the fine-tuned model, or a copy where that does not agree better.

        Raises:
            OperationError: nothing can be learned, or a model does not run.
            VerificationError: a loss is not finite.
        """
        result = copied(model)
        constants = Constants(result)
        view = view_layers(result, Facts(sizes={}), constants)
        jobs, skipped = find_jobs(result, view)
        left = left_out(view.layers, self.only, self.exclude)
        chosen = {x.name: x for x in jobs if x.weight.step is None and x.name not in left}
        layers, notes = learnable(model, list(chosen.values()))
        if not layers:
            raise OperationError("no layer can be learned; see what was skipped")
        student, learnt = make_student(model, list(layers.values()))
        learned = {name: FloatWeights(x.rows.copy()) for name, x in learnt.items()}
        rest, held = split_to_judge(self.images, self.options.held_out)
        taught = Teacher(
            self.reference, student, learnt, learned, rest, held, self.options, RATE
        ).run()
        writer = WeightWriter(result, constants)
        for name, found in learned.items():
            job = chosen[name]
            values = round_to(found.W, job.weight.type)
            writer.write(job.layers, job.weight, values)
        result = shift_outputs(result, taught.shifts)
        verdict = judge(self.reference, model, result, held, self.options.threads)
        if not verdict["accepted"]:
            result = copied(model)
        details = taught.details(self.options, verdict)
        left_alone = (Skipped(s.node, f"not learned: {s.reason}") for s in skipped)
        notes = [*left_alone, *notes, *taught.notes]
        return PassResult(result, bool(verdict["accepted"]), tuple(notes), None, details)
