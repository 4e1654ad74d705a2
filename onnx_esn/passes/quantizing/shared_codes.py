"""Compensated codes of weights that several layers share.

One code has to do for all of them, and the first of them is needed before the inputs of the others
are known. So these codes are chosen before all others, for the inputs that the layers have in the
model as it is: with the second moments of all uses added up,

    H = Σ_u n_u·H_u / Σ_u n_u,   each H_u about the mean of its own use,

since what changes in the mean goes into the bias of each use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import onnx

from onnx_esn.calibration import CalibrationSet
from onnx_esn.numerics.cross_moments import CrossMoments, quadratic
from onnx_esn.numerics.midrise import Floats
from onnx_esn.passes.base import Skipped
from onnx_esn.passes.layerwise.observation import observe
from onnx_esn.passes.layerwise.solvers import Round
from onnx_esn.passes.layerwise.statistics import LayerStatistics, WalkOptions
from onnx_esn.passes.quantizing.quantizable import Job
from onnx_esn.passes.quantizing.settling import settled
from onnx_esn.plans import LayerQuantization

_NOT_ALL = "rounded to nearest: not all layers that share its weight can be followed"


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
            notes.append(Skipped(job.name, _NOT_ALL))
            continue
        first = job.layers[0]
        W = job.weight.W.reshape(first.groups, first.filters // first.groups, -1)
        even, odd = (_added([use[half] for use in uses], W) for half in (0, 1))
        variance = quadratic(W, even.merge(odd).H)
        solver(LayerStatistics(first, W, (even, odd), variance))
        codes, step = solver.codes(job.name), solver.step[job.name]
        entry = settled(
            job, entries[job.name], solver.quantizer, codes, step, np.zeros(first.filters)
        )
        if entry is None:
            notes.append(Skipped(job.name, "its type cannot hold compensated codes apart"))
        else:
            found.update({x.name: replace(entry, layer=x.name, bias=None) for x in job.layers})
    return found, notes


def _added(uses: Sequence[CrossMoments], W: Floats) -> CrossMoments:
    """The moments of all uses, each about its own mean, and with the outputs of weights W."""

    def centred(use: CrossMoments) -> CrossMoments:
        xx = use.xx.astype(np.float64)
        means = np.zeros_like(use.x_mean), np.zeros(W.shape[:2])
        return CrossMoments(use.count, *means, xx, W @ xx, quadratic(W, xx))

    return reduce(CrossMoments.merge, map(centred, uses))
