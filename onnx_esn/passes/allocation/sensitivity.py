"""How much errors inside a model move its outputs, without labels.

One layer or one channel group at a time is perturbed in the way that compression would do it, and
the divergence of the model's outputs from the unperturbed ones is measured on some images. Rounding
errors are spread over the positions of an image and average out where those are pooled; what a
removed channel leaves behind does not. So both are probed, each for its own kind of loss.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
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
from onnx_esn.passes.layerwise.following import find_plain_layers
from onnx_esn.passes.layerwise.input_moments import InputMoments
from onnx_esn.passes.layerwise.working_copy import with_own_weights

log = logging.getLogger(__name__)

PROBE_BITS = 3
# Of the median sensitivity: what is measured below is noise.
_FLOOR = 1e-2


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


def layer_sensitivities(
    prober: Prober, progress: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """Divergence for each unit of relative rounding error, by layer; the least for silent ones.

    Each layer is rounded to `PROBE_BITS` bits. Errors are taken to be small enough to add up.
    """
    found: dict[str, float] = {}
    for done, name in enumerate(prober.layers):
        m = prober.moments[name]
        rows = m.W.reshape(-1, m.W.shape[2])
        step = optimal_step(rows, PROBE_BITS)
        rough = decode(encode(rows, step, PROBE_BITS), step).reshape(m.W.shape)
        energy = m.energy
        relative = m.error(rough) / energy if energy > 0 else 0.0
        if relative > 0:
            found[name] = prober.divergence({name: rough}) / relative
        if progress is not None:
            progress(done + 1, len(prober.layers))
    sound = [v for v in found.values() if np.isfinite(v) and v > 0]
    if not sound:
        return dict.fromkeys(prober.layers, 1.0)
    least, most = _FLOOR * float(np.median(sound)), max(sound)
    result = {name: min(max(found.get(name, least), least), most) for name in prober.layers}
    log.info("sensitivities of layers: %s", result)
    return result
