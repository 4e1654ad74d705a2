"""How much errors inside a model move its outputs, without labels.

What rounding a filter does is found for all filters at once by going backward (`filter_errors`).
How a layer's rounding adds up, and what pruning does, is probed: one layer or one channel group at
a time is perturbed in the way that compression would do it, and the divergence of the model's
outputs from the unperturbed ones is measured on some images. Rounding errors are spread over the
positions of an image and average out where those are pooled; what a removed channel leaves behind
does not. So both are probed, each for its own kind of loss.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from onnx_esn.calibration import CalibrationSet, Session, collect_outputs
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.judged_tensors import judged_tensors
from onnx_esn.numerics.agreement import divergence
from onnx_esn.numerics.midrise import Floats, decode, encode
from onnx_esn.numerics.step_size import optimal_step
from onnx_esn.passes.allocation.filter_errors import Change
from onnx_esn.passes.layerwise.following import find_plain_layers
from onnx_esn.passes.layerwise.input_moments import InputMoments
from onnx_esn.passes.layerwise.working_copy import with_own_weights

log = logging.getLogger(__name__)

PROBE_BITS = 3
PROBED = 8  # layers, where predictions say how the others stand beside them
# Of the median sensitivity: what is measured below is noise.
_FLOOR = 1e-2
# What a filter that is left out is taken to cost, of what was seen. Where all of it is believed,
# some filters seem to cost nothing by chance, and those would be chosen.
_DOUBT = 2.0


class Prober:
    """A model with weights that can be tried, on a few images.

    Args:
        model: in standard form.
        moments: of the layers that can be perturbed.
        images: a few dozen to a few hundred samples; each probe costs one pass over them.
        batch_size, threads: for running them.

    Raises:
        InferenceError: the model does not run.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        moments: Mapping[str, InputMoments],
        images: CalibrationSet,
        *,
        batch_size: int = 64,
        threads: int | None = None,
    ) -> None:
        self.layers = {x.name: x for x in find_plain_layers(model) if x.name in moments}
        self.moments, self.images = moments, images
        self._batch, self._threads = batch_size, threads
        layers = list(self.layers.values())
        self._copy, self._slots = with_own_weights(model, Constants(model), layers)
        self._stored = {t.name: t for t in self._copy.graph.initializer}
        self._judged = judged_tensors(model)
        self._reference = self._outputs()

    def divergence(self, weights: Mapping[str, Floats]) -> float:
        """Divergence of the outputs with other weights (G, m, d) of some layers, means kept."""
        for name, W in weights.items():
            m = self.moments[name]
            self._set(name, W, np.einsum("gmd,gd->gm", m.W - W, m.mean).reshape(-1))
        found = divergence(self._reference, self._outputs())
        for name in weights:
            self._set(name, self.moments[name].W, np.zeros(self.layers[name].filters))
        return found

    def _set(self, name: str, W: Floats, shift: Floats) -> None:
        layer = self.layers[name]
        rows = W.reshape(layer.filters, -1)
        for tensor, value in self._slots[name].values(layer, rows, shift).items():
            self._stored[tensor].CopyFrom(numpy_helper.from_array(value, tensor))

    def _outputs(self) -> dict[str, npt.NDArray[Any]]:
        session = Session(self._copy, outputs=self._judged, threads=self._threads)
        return collect_outputs(session, self.images.for_inputs(session.inputs), self._batch)


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """What errors count.

    Attributes:
        layers: divergence for each unit of relative error of a layer's outputs, by its name.
        filters: what the error of each of a layer's filters (M,) counts, beside that of the others:
            the mean weighted by their errors at `PROBE_BITS` is 1. All alike where it is missing.
        absent: the same of filters that are left out altogether, in the unit of `filters`, for the
            layers of which it is known.
    """

    layers: Mapping[str, float]
    filters: Mapping[str, Floats]
    absent: Mapping[str, Floats]


def rough_weights(m: InputMoments) -> Floats:
    """The weights (G, m, d) of a layer rounded to nearest with `PROBE_BITS` bits."""
    rows = m.W.reshape(-1, m.W.shape[2])
    step = optimal_step(rows, PROBE_BITS)
    return decode(encode(rows, step, PROBE_BITS), step).reshape(m.W.shape)


def change_to(m: InputMoments, W: Floats) -> Change:
    """Other weights (G, m, d) of a layer as a change of its filters."""
    change = W - m.W
    shift = np.einsum("gmd,gd->gm", change, m.mean)
    return Change(change.reshape(-1, m.W.shape[2]), shift.reshape(-1))


def sensitivities(
    prober: Prober,
    rough: Mapping[str, Floats],
    predicted: Mapping[str, Floats],
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivities:
    """What errors of layers and filters count.

    Args:
        prober: each layer is rounded, alone. Errors are taken to be small enough to add up.
        rough: the `rough_weights` of its layers.
        predicted: `filter_errors` (1, M) of the change to `rough`, by layer, or (2, M) with that to
            none at all. Of layers that have it only a few are probed, as it knows all of them
            beside each other, but not how errors of the filters of one layer add up.
        progress: called with (probes done, probes).

    Returns:
        For each layer of the prober; the least sensitivity where nothing was seen.
    """
    moments = prober.moments
    errors = {name: moments[name].errors(rough[name]).reshape(-1) for name in prober.layers}
    relative = {name: _relative(moments[name], error) for name, error in errors.items()}
    names = [name for name in prober.layers if relative[name] > 0]
    found = {name: float(predicted[name][0].sum()) for name in names if name in predicted}
    known = [name for name, value in found.items() if value > 0]
    probed = {*_spread(known, PROBED), *(name for name in names if name not in known)}
    ratios = []
    for done, name in enumerate(x for x in names if x in probed):
        measured = prober.divergence({name: rough[name]})
        if name in known:
            ratios.append(measured / found[name])
        else:
            found[name] = measured
        if progress is not None:
            progress(done + 1, len(probed))
    sound = [x for x in ratios if np.isfinite(x) and x > 0]
    ratio = float(np.median(sound)) if sound else 1.0
    layers = {n: (ratio if n in known else 1.0) * v / relative[n] for n, v in found.items()}
    filters = {name: _importance(predicted[name][0], errors[name]) for name in known}
    absent = {
        name: _absence(predicted[name], errors[name], moments[name])
        for name in known
        if len(predicted[name]) > 1
    }
    result = Sensitivities(_within(layers, prober.layers), filters, absent)
    log.info("sensitivities of layers: %s (predicted, times %.3g)", result.layers, ratio)
    return result


def _relative(m: InputMoments, errors: Floats) -> float:
    """Energy of the filters' errors (M,), relative to that of the outputs."""
    energy = m.energy
    return float(errors.sum()) / energy if energy > 0 else 0.0


def _spread(names: Sequence[str], count: int) -> list[str]:
    """So many of the names, evenly."""
    at = np.linspace(0, len(names) - 1, min(count, len(names)))
    return [names[round(i)] for i in at]


def _within(found: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """The sensitivities of all names, none below the noise."""
    sound = [v for v in found.values() if np.isfinite(v) and v > 0]
    if not sound:
        return dict.fromkeys(names, 1.0)
    least, most = _FLOOR * float(np.median(sound)), max(sound)
    return {name: min(max(found.get(name, least), least), most) for name in names}


def _importance(predicted: Floats, error: Floats) -> Floats:
    """What the error of each filter (M,) counts.

    Half of what was seen, in decibels: how the layers behind make up for errors once they are
    rounded themselves was not. It is told in steps of 1/64 octave, so that the last bits of sums do
    not decide.
    """
    seen = (error > 0) & (predicted > 0)
    if not seen.any():
        return np.ones(error.size)
    octaves = np.zeros(error.size)
    octaves[seen] = 0.5 * np.log2(predicted[seen] / error[seen])
    octaves[~seen] = np.median(octaves[seen])
    octaves -= np.log2(float((error * np.exp2(octaves)).sum() / error.sum()))
    return np.asarray(np.exp2(np.round(octaves * 64.0) / 64.0))


def _absence(predicted: Floats, rough: Floats, m: InputMoments) -> Floats:
    """What the error of each filter (M,) counts that is left out.

    What it leaves behind is not spread over the positions of an image as rounding errors are; how
    much more that counts in all of a layer is believed as it was seen.

    Args:
        predicted: (2, M), of rounding and of leaving out.
        rough: errors (M,) of rounding.
        m: of the layer.
    """
    whole = m.errors(np.zeros_like(m.W)).reshape(-1)
    rounded, left_out = predicted.sum(axis=1)
    if left_out <= 0 or rounded <= 0:
        return np.full(whole.size, np.inf)
    worse = (left_out / whole.sum()) / (rounded / rough.sum())
    return np.asarray(_DOUBT * worse * _importance(predicted[1], whole))
