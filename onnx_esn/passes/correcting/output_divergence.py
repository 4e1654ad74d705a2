"""How far a model's outputs are from a reference's, on images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import onnx

from onnx_esn.calibration import CalibrationSet, Session, collect_outputs, input_specs
from onnx_esn.errors import InferenceError, OptionError
from onnx_esn.numerics.agreement import divergence

log = logging.getLogger(__name__)


def output_divergences(
    reference: onnx.ModelProto,
    models: Sequence[onnx.ModelProto],
    images: CalibrationSet,
    *,
    batch_size: int = 64,
    threads: int | None = None,
) -> list[float]:
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
            result.append(float("inf"))
            continue
        if set(names) != set(wanted):
            outputs = dict(zip(wanted, (outputs[name] for name in names), strict=True))
        result.append(divergence(wanted, outputs))
    return result
