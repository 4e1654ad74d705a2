"""What a channel class is worth: the criteria of `prune`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from onnx_esn.errors import ModelError, OptionError
from onnx_esn.graph.channels.groups import Analysis
from onnx_esn.graph.norms.batchnorm import BatchNorm, batchnorm_after
from onnx_esn.graph.readers import readers
from onnx_esn.numerics.signal_norm import l1_norm, signal_norm

Floats = NDArray[np.float64]
Weights = NDArray[np.generic]  # of any float type
# (W (M, K), parameters of the BatchNorm that follows or None, measured output variance or None)
Criterion = Callable[[Weights, BatchNorm | None, Floats | None], Floats]


def _signal_norm(W: Weights, bn: BatchNorm | None, measured: Floats | None) -> Floats:
    """‖W_m‖² of the weights before BatchNorm; where it was folded, the variance of the output.

    A folded filter W·γ/σ is no measure of its worth: σ grows with ‖W‖, and a dead filter (σ → 0)
    gets the largest norm of all. Its signal is what it sends through its own inputs, W H Wᵀ.
    """
    return measured if bn is None and measured is not None else signal_norm(W)


def _effective_norm(W: Weights, bn: BatchNorm | None, measured: Floats | None) -> Floats:
    """‖W_m·γ/√(σ²+ε)‖²."""
    return signal_norm(W, None if bn is None else bn.gain)


def _output_variance(W: Weights, bn: BatchNorm | None, measured: Floats | None) -> Floats:
    """Variance of the filter's output, BatchNorm's σ² or measured."""
    if bn is not None:
        return bn.variance
    if measured is not None:
        return measured
    raise OptionError(
        "criterion output-variance needs images: this model has layers without BatchNormalization"
    )


def _bn_scale(W: Weights, bn: BatchNorm | None, measured: Floats | None) -> Floats:
    """|γ|; 1 for every filter of a layer without BatchNorm."""
    return np.ones(len(W)) if bn is None else np.abs(bn.gamma)


def _l1_norm(W: Weights, bn: BatchNorm | None, measured: Floats | None) -> Floats:
    """‖W_m‖₁."""
    return l1_norm(W)


CRITERIA: dict[str, Criterion] = {
    "signal-norm": _signal_norm,
    "effective-norm": _effective_norm,
    "output-variance": _output_variance,
    "l1-norm": _l1_norm,
    "bn-scale": _bn_scale,
}
MEASURED = ("signal-norm", "output-variance")


def unnormalized_outputs(analysis: Analysis) -> dict[str, int]:
    """Outputs (with channel axis) of layers that no BatchNormalization follows."""
    users, constants = readers(analysis.model), analysis.constants
    first = analysis.first_labels
    return {
        x.output: x.channel_axis
        for x in analysis.layers
        if x.index in first and batchnorm_after(analysis.model, users, constants, x) is None
    }


def class_scores(
    analysis: Analysis,
    criterion: str,
    variances: Mapping[str, Floats] | None = None,
    *,
    ranking: bool = True,
) -> tuple[Floats, Floats]:
    """Score (G,) and number of filters (G,) of each class.

    A filter's score is its criterion divided by the mean over its layer, so that layers of
    different scale can be ranked together; a class scores the mean over its filters.

    Args:
        analysis: the labelled model.
        criterion: key of `CRITERIA`.
        variances: measured variance (M,) of layers' outputs, by output tensor.
        ranking: whether the scores are compared; otherwise one that is no number is infinite.

    Raises:
        OptionError: the criterion needs measured variances.
        ModelError: a filter scores NaN or infinity: it has no place in a ranking.
    """
    score = CRITERIA[criterion]
    total = np.zeros(len(analysis.classes))
    count = np.zeros(len(analysis.classes))
    users = readers(analysis.model)
    first_labels = analysis.first_labels
    for layer in analysis.layers:
        first = first_labels.get(layer.index)
        if first is None:
            continue
        W = layer.as_filters(analysis.constants.value(layer.weight))
        bn = batchnorm_after(analysis.model, users, analysis.constants, layer)
        norms = score(W, bn, (variances or {}).get(layer.output))
        finite = np.isfinite(norms)
        if ranking and not finite.all():
            raise ModelError(
                f"{layer.name}: filter {int(np.argmin(finite))} scores "
                f"{norms[int(np.argmin(finite))]} by {criterion}: its weights, or what normalizes "
                "its outputs, hold NaN or infinity, so that filters cannot be ranked; mend the "
                "model"
            )
        norms = np.where(finite, norms, np.inf)
        mean = norms.mean(where=finite) if finite.any() else 0.0
        norms = norms / mean if mean > 0 else norms
        of = analysis.classes.of[first : first + layer.filters]
        np.add.at(total, of, norms)
        np.add.at(count, of, 1.0)
    return np.divide(total, count, out=np.full(total.size, np.inf), where=count > 0), count
