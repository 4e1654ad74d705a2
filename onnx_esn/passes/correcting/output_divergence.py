"""How far a model's outputs are from a reference's, on images."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, Session, collect_outputs, input_specs
from onnx_esn.errors import InferenceError, OptionError
from onnx_esn.numerics.agreement import divergence

log = logging.getLogger(__name__)
Outputs = Mapping[str, npt.NDArray[Any]]
_GROUPS = 16


@dataclass(frozen=True)
class Judged:
    """A divergence from the reference.

    Attributes:
        value: on all images.
        without: on all but a group of them, for each of up to 16 groups; empty where outputs do not
            follow the images.
    """

    value: float
    without: tuple[float, ...] = field(default=())

    def less_than(self, other: Judged) -> float | None:
        """By how many standard errors it is less, on the same images; None where nothing tells.

        The error of the difference is that of the grouped jackknife (Quenouille, 1956).
        """
        g = len(self.without)
        if g < 2 or g != len(other.without) or not math.isfinite(self.value + other.value):
            return None
        apart = np.asarray(other.without) - np.asarray(self.without)
        error = math.sqrt((g - 1) / g * float(np.square(apart - apart.mean()).sum()))
        gain = other.value - self.value
        return gain / error if error > 0 else math.copysign(math.inf, gain) if gain else 0.0


def output_divergences(
    reference: onnx.ModelProto,
    models: Sequence[onnx.ModelProto],
    images: CalibrationSet,
    *,
    batch_size: int = 64,
    threads: int | None = None,
) -> list[float]:
    """The values that `judge_outputs` finds; see there."""
    found = judge_outputs(
        reference, models, images, batch_size=batch_size, threads=threads, groups=0
    )
    return [x.value for x in found]


def judge_outputs(
    reference: onnx.ModelProto,
    models: Sequence[onnx.ModelProto],
    images: CalibrationSet,
    *,
    batch_size: int = 64,
    threads: int | None = None,
    groups: int = _GROUPS,
) -> list[Judged]:
    """`numerics.agreement.divergence` of each model; infinite where one fails or gives NaN.

    Outputs pair by name, or by position where the names differ.

    Raises:
        OptionError: the models do not have as many outputs as the reference.
        InferenceError: the reference does not run, or gives NaN.
    """

    def run(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
        session = Session(model, threads=threads)
        return collect_outputs(session, images.for_inputs(input_specs(model)), batch_size)

    wanted = run(reference)
    result = []
    for model in models:
        names = [output.name for output in model.graph.output]
        if len(names) != len(wanted):
            raise OptionError(
                f"the model has {len(names)} outputs, the reference {len(wanted)}; give the model "
                f"that this one was made from"
            )
        try:
            outputs = run(model)
        except InferenceError as error:
            log.info("diverges infinitely: %s", error)
            result.append(Judged(math.inf))
            continue
        if set(names) != set(wanted):
            outputs = dict(zip(wanted, (outputs[name] for name in names), strict=True))
        value = divergence(wanted, outputs)
        result.append(Judged(value, _without(wanted, outputs, len(images), groups)))
    return result


def _without(wanted: Outputs, outputs: Outputs, n: int, groups: int) -> tuple[float, ...]:
    """The divergence without each group of samples: every g-th of them."""
    g = min(groups, n)
    if g < 2 or any(x.ndim == 0 or len(x) != n for x in (*wanted.values(), *outputs.values())):
        return ()
    found = []
    for i in range(g):
        rest = np.arange(n) % g != i
        found.append(
            divergence(
                {k: x[rest] for k, x in wanted.items()}, {k: x[rest] for k, x in outputs.items()}
            )
        )
    return tuple(found)
