"""Compensated codes of weights whose uses wait for each other: a recurrence that was laid open.

The first use needs its codes before the inputs of the others are known. So they are chosen before
all others, for the inputs that the layers have in the model as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.numerics.cross_moments import CrossMoments, quadratic
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layerwise.observation import observe
from onnx_esn.passes.layerwise.solvers import Round
from onnx_esn.passes.layerwise.statistics import LayerStatistics, WalkOptions
from onnx_esn.passes.layerwise.uses import NOT_ALL, added
from onnx_esn.passes.quantizing.quantizable import Job
from onnx_esn.passes.quantizing.settling import BLURRED, settled
from onnx_esn.plans import LayerQuantization


def shared_codes(
    model: onnx.ModelProto,
    jobs: Sequence[Job],
    entries: Mapping[str, LayerQuantization],
    images: CalibrationSet,
    solver: Round,
    options: WalkOptions,
) -> tuple[dict[str, LayerQuantization], list[Skipped]]:
    """Codes for weights of several layers.

    Args:
        model: in standard form.
        jobs: those weights.
        entries: what the plan has for each layer.
        images: the calibration set, with the views that are wanted.
        solver: rounds; it has bits for the first layer of each.
        options: how to gather.

    Returns:
        New entries, by layer, without biases; and what stays rounded to nearest.

    Raises:
        InferenceError: the model does not run.
        VerificationError: values that are not finite; names the layer.
    """
    names = [layer.name for job in jobs for layer in job.layers]
    parts = observe(model, images, names, options).parts
    found: dict[str, LayerQuantization] = {}
    notes: list[Skipped] = []
    for job in jobs:
        uses = [parts[layer.name] for layer in job.layers if layer.name in parts]
        if len(uses) < len(job.layers) or len({layer.groups for layer in job.layers}) > 1:
            notes.append(Skipped(job.name, f"rounded to nearest: {NOT_ALL}"))
            continue
        first = job.layers[0]
        W = job.weight.W.reshape(first.groups, first.filters // first.groups, -1)
        even, odd = (added([_with_outputs(use[half], W) for use in uses]) for half in (0, 1))
        variance = quadratic(W, even.merge(odd).H)
        solver(LayerStatistics(first, W, (even, odd), variance))
        codes, step = solver.codes(job.name), solver.step[job.name]
        entry = settled(
            job, entries[job.name], solver.quantizer, codes, step, np.zeros(first.filters)
        )
        if entry is None:
            notes.append(Skipped(job.name, BLURRED))
        else:
            found.update({x.name: replace(entry, layer=x.name, bias=None) for x in job.layers})
    return found, notes


def _with_outputs(use: CrossMoments, W: Floats) -> CrossMoments:
    """The moments of inputs, and with the outputs of weights W, but for their means."""
    xx = use.xx.astype(np.float64)
    none = np.zeros(W.shape[:2])  # `added` takes each use about its own mean
    return CrossMoments(use.count, use.x_mean, none, xx, W @ xx, quadratic(W, xx))
