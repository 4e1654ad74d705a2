"""Run models side by side over the same samples, batch by batch, and compare their outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from onnx_esn.calibration import CalibrationSet, Session, iterate_outputs
from onnx_esn.errors import LabelsError

from .accumulation import AgreementSum, Hits, Outputs, is_classifier, measure_accuracy
from .comparison import Accuracy, OutputAgreement
from .turns import Runnable, side_by_side

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


def compare_outputs(
    models: Sequence[Runnable],
    sets: Sequence[CalibrationSet],
    maps: Sequence[dict[str, str]],
    first: int,
    size: int,
    insist: bool,
    progress: Progress | None,
) -> tuple[list[list[OutputAgreement]], list[Accuracy | None]]:
    """Run all models over their sets: agreement of each output, and accuracy, of each model.

    Args:
        models, sets: one set for each model, all of the same samples.
        maps: for each model, its name of each output of the reference.
        first: index of the reference.
        size: samples in a batch.
        insist: whether labels without class scores are an error, or only a warning.
        progress: called with the samples done and their total.

    Raises:
        LabelsError: labels that the class scores do not fit, or there are none (``insist``).
        InferenceError: a model cannot be run or gives NaN.
    """
    sums = [[AgreementSum(name) for name in maps[first]] for _ in models]
    hits = [Hits() for _ in models]
    labels, scores = sets[first].labels, None
    done = 0
    for outputs in _lockstep(models, sets, maps, size):
        count = min(size, len(sets[first]) - done)
        if labels is not None:
            if not done:
                scores = _class_scores(outputs[first], labels, insist)
            if scores is not None:
                for index, own in enumerate(outputs):
                    hits[index].add(own[scores], labels[done : done + count])
        for index, own in enumerate(outputs):
            for total in sums[index]:
                total.add(outputs[first][total.output], own[total.output])
        done += count
        if progress is not None:
            progress(done, len(sets[first]))
    agreements = [[total.result() for total in row] for row in sums]
    if scores is None:
        return agreements, [None] * len(models)
    right = [hit.array() for hit in hits]
    return agreements, [measure_accuracy(row, right[first]) for row in right]


def _lockstep(
    models: Sequence[Runnable],
    sets: Sequence[CalibrationSet],
    maps: Sequence[dict[str, str]],
    size: int,
) -> Iterator[list[Outputs]]:
    """The outputs of all models for each batch, by the reference's names."""

    def run(index: int, session: Session) -> Iterator[Outputs]:
        return iterate_outputs(session, sets[index], size, list(maps[index].values()))

    for step in side_by_side(models, run):
        yield [
            {name: given[own] for name, own in names.items()}
            for given, names in zip(step, maps, strict=True)
        ]


def _class_scores(outputs: Outputs, labels: npt.NDArray[np.int64], insist: bool) -> str | None:
    """The first output that holds class scores which the labels fit."""
    for name, output in outputs.items():
        if is_classifier(output):
            if labels.max() >= output.shape[1]:
                raise LabelsError(
                    f"label {labels.max()} does not fit the {output.shape[1]} classes of output "
                    f"'{name}'; labels are class indices from 0"
                )
            return name
    shapes = ", ".join(
        f"'{name}' {' x '.join(['N', *map(str, value.shape[1:])])}"
        for name, value in outputs.items()
    )
    message = f"labels need an output with class scores (N, C), but the model has {shapes}"
    if insist:
        raise LabelsError(message)
    log.warning("%s; accuracy is left out", message)
    return None
