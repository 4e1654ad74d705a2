"""How far the outputs of two models are from each other, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_esn.calibration import CalibrationSet, Session, iterate_outputs
from onnx_esn.evaluation.accumulation import AgreementSum
from onnx_esn.evaluation.comparison import OutputAgreement
from onnx_esn.evaluation.turns import Runnable, side_by_side
from onnx_esn.numerics.agreement import are_labels, divergence, is_classifier

Array = npt.NDArray[Any]


def output_agreements(
    models: tuple[Runnable, Runnable],
    sets: tuple[CalibrationSet, CalibrationSet],
    names: Mapping[str, str],
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[tuple[OutputAgreement, ...], float]:
    """Agreement of each output, and the divergence of all.

    Only class scores are kept for all samples (their divergence has one temperature for all);
    everything else is summed up.

    Args:
        models, sets: the models, and the same samples for each.
        names: the second model's name of each output of the first.
        batch_size: samples at once.
        progress: called with the samples done and their total.

    Raises:
        InferenceError: a model does not run, or gives NaN.
    """
    sums = {name: AgreementSum(name) for name in names}
    scores: dict[str, list[tuple[Array, Array]]] = {name: [] for name in names}

    def run(side: int, session: Session) -> Iterator[Mapping[str, Array]]:
        wanted = list(names.values()) if side else list(names)
        return iterate_outputs(session, sets[side], batch_size, wanted, None if side else progress)

    for mine, theirs in side_by_side(models, run):
        for name, other in names.items():
            sums[name].add(mine[name], theirs[other])
            if is_classifier(mine[name]) and not are_labels(mine[name]):
                scores[name].append((mine[name], theirs[other]))
    results = tuple(total.result() for total in sums.values())
    terms = [_divergence(result, scores[result.output]) for result in results]
    return results, float(np.mean(terms))


def _divergence(result: OutputAgreement, scores: Sequence[tuple[Array, Array]]) -> float:
    figures = result.agreement
    if figures is None:
        return math.inf
    if figures.kl is None:
        return figures.normalized_error if figures.top1 is None else 1.0 - figures.top1
    if not scores:  # a map of classes
        return figures.kl
    refs, cands = (np.concatenate(parts) for parts in zip(*scores, strict=True))
    return divergence({result.output: refs}, {result.output: cands})
