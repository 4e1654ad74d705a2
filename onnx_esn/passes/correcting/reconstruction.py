"""Reconstruction after pruning: weights and biases refitted to the float model's outputs.

The filters that are left read fewer channels. Least squares over the calibration images finds the
weights with which they come closest to what they made before, given the inputs that the layers
refitted before them send (`layerwise.walk`); where a layer goes into a residual sum, it makes good
what the stream has lost.

Source: He et al. (2017), "Channel pruning for accelerating very deep neural networks"; Luo et al.
(2017), "ThiNet".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.formats.weight_writing import WeightWriter
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.facts import Facts
from onnx_esn.graph.number_formats import round_to
from onnx_esn.passes.base import PassResult, Skipped, copied
from onnx_esn.passes.layers.costs import view_layers
from onnx_esn.passes.layers.patterns import left_out
from onnx_esn.passes.layerwise.solvers import Refit
from onnx_esn.passes.layerwise.statistics import Solver, WalkOptions
from onnx_esn.passes.layerwise.walk import walk
from onnx_esn.passes.quantizing.quantizable import at_once, find_jobs
from onnx_esn.passes.quantizing.shifting import shift_outputs

_TURNS = "the layers that share its weight follow one another"


@dataclass(frozen=True)
class Reconstruct:
    """Refit the layers of a compressed model to a reference.

    Layers on a grid, with computed weights, or that cannot be followed stay as they are; so do the
    uses of a weight that wait for each other.
    `details` of the result: `refitted_layers`.

    Attributes:
        images: the calibration set.
        reference: the model that this one was made from, in standard form.
        exclude, only: patterns on names of nodes and weights, as for `Prune`.
        options: how to gather statistics.
        solver: makes the new weights.
    """

    images: CalibrationSet
    reference: onnx.ModelProto
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    options: WalkOptions = field(default_factory=WalkOptions)
    solver: Solver = field(default_factory=Refit)

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Return the model with new weights and biases.

        Raises:
            OnnxEsnError: see `walk`.
        """
        result = copied(model)
        constants = Constants(result)
        view = view_layers(result, Facts(sizes={}), constants)
        jobs, skipped = find_jobs(result, view)
        left = left_out(view.layers, self.only, self.exclude)
        jobs = [
            job
            for job in jobs
            if job.weight.step is None and not any(layer.name in left for layer in job.layers)
        ]
        jobs, waiting = at_once(result, jobs)
        skipped += [Skipped(layer.name, _TURNS) for job in waiting for layer in job.layers]
        chosen = {layer.name: job for job in jobs for layer in job.layers}
        together = [[layer.name for layer in job.layers] for job in jobs if len(job.layers) > 1]
        names = [layer.name for layer in view.layers if layer.name in chosen]
        solutions, missed = walk(
            result,
            self.reference,
            self.images,
            self.solver,
            names,
            self.options,
            together=together,
        )
        writer = WeightWriter(result, constants)
        for name, solution in solutions.items():
            job = chosen[name]
            if name != job.name:
                continue
            values = round_to(solution.W.reshape(job.weight.W.shape), job.weight.type)
            writer.write(job.layers, job.weight, values)
        shifts = {name: solution.shift for name, solution in solutions.items()}
        result = shift_outputs(result, shifts)
        notes = [Skipped(s.node, f"not refitted: {s.reason}") for s in (*skipped, *missed)]
        details = {"refitted_layers": len(solutions)}
        return PassResult(result, bool(solutions), tuple(notes), None, details)
