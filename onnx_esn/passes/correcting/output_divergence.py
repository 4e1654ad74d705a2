"""How far a model's outputs are from a reference's, on images."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, Session, collect_outputs
from onnx_esn.errors import InferenceError, OptionError
from onnx_esn.graph.judged_tensors import judged_beside, judged_tensors
from onnx_esn.numerics.agreement import divergence, divergences
from onnx_esn.numerics.midrise import Floats

log = logging.getLogger(__name__)
Outputs = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Judged:
    """A divergence from the reference.

    Attributes:
        value: the mean over all images.
        each: of each image (N,); None where outputs do not follow the images.
    """

    value: float
    each: Floats | None = None

    def less_than(self, other: Judged) -> float | None:
        """By how many standard errors images typically diverge less, of the same images.

        Divergences of single images differ by orders of magnitude, and few of them make up a mean.
        How they change from one model to another is a factor; so logarithms are compared, image by
        image. To each divergence the smaller of the two means is added: far below it all images
        change together, with the temperature that suits the few that are far above. None where
        nothing tells.
        """
        if self.each is None or other.each is None or len(self.each) < 2:
            return None
        pair = np.maximum(np.stack([self.each, other.each]), 0.0)
        if not np.isfinite(pair).all():
            return None
        scale = max(float(pair.mean(axis=1).min()), np.finfo(float).tiny)
        gain = np.diff(np.log(pair + scale), axis=0)[0]
        typical, error = float(gain.mean()), float(gain.std(ddof=1)) / math.sqrt(gain.size)
        if error > 0:
            return typical / error
        return math.copysign(math.inf, typical) if typical else 0.0


def output_divergences(
    reference: onnx.ModelProto,
    models: Sequence[onnx.ModelProto],
    images: CalibrationSet,
    *,
    batch_size: int = 64,
    threads: int | None = None,
) -> list[float]:
    """The values that `judge_outputs` finds; see there."""
    found = judge_outputs(reference, models, images, batch_size=batch_size, threads=threads)
    return [x.value for x in found]


def judge_outputs(
    reference: onnx.ModelProto,
    models: Sequence[onnx.ModelProto],
    images: CalibrationSet,
    *,
    batch_size: int = 64,
    threads: int | None = None,
) -> list[Judged]:
    """`numerics.agreement.divergence` of each model; infinite where one fails or gives NaN.

    Outputs, or what they are judged by (`judged_tensors`), pair by name, or by position where the
    names differ.

    Raises:
        OptionError: the models do not have as many outputs as the reference.
        InferenceError: the reference does not run, or gives NaN.
    """

    def run(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        session = Session(model, outputs=names, threads=threads)
        return collect_outputs(session, images.for_inputs(session.inputs), batch_size)

    judged = judged_tensors(reference)
    wanted = run(reference, judged)
    result = []
    for model in models:
        count, expected = len(model.graph.output), len(reference.graph.output)
        names = judged_beside(model, judged)
        if count != expected or len(names) != len(judged):
            raise OptionError(
                f"the model has {count} outputs, the reference {expected}; give the model "
                f"that this one was made from"
            )
        try:
            outputs = run(model, names)
        except InferenceError as error:
            log.info("diverges infinitely: %s", error)
            result.append(Judged(math.inf))
            continue
        if set(names) != set(wanted):
            outputs = dict(zip(wanted, (outputs[name] for name in names), strict=True))
        follow = all(x.ndim > 0 and len(x) == len(images) for x in wanted.values())
        each = divergences(wanted, outputs) if follow else None
        value = divergence(wanted, outputs) if each is None else max(float(each.mean()), 0.0)
        result.append(Judged(value, each))
    return result
