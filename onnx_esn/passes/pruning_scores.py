"""What a channel class is worth: the criteria of `prune`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from onnx_esn.errors import OptionError
from onnx_esn.graph.channel_groups import Analysis
from onnx_esn.graph.constants import Constants
from onnx_esn.graph.evaluate import attributes
from onnx_esn.graph.layers import Layer
from onnx_esn.graph.readers import Readers
from onnx_esn.numerics.signal_norm import batchnorm_gain, l1_norm, signal_norm

Floats = NDArray[np.float64]
# (W (M, K), parameters of the BatchNorm that follows or None, measured output variance or None)
Criterion = Callable[[Floats, "Normalization | None", "Floats | None"], Floats]


class Normalization:
    """γ, σ² and ε of a BatchNormalization, (M,)."""

    def __init__(self, gamma: Floats, variance: Floats, epsilon: float) -> None:
        self.gamma, self.variance, self.epsilon = gamma, variance, epsilon

    @property
    def gain(self) -> Floats:
        """γ/√(σ²+ε): what folding multiplies the filter with."""
        return batchnorm_gain(self.gamma, self.variance, self.epsilon)


def _signal_norm(W: Floats, bn: Normalization | None, measured: Floats | None) -> Floats:
    """‖W_m‖² of the weights before BatchNorm; where it was folded, the variance of the output.

    A folded filter W·γ/σ is no measure of its worth: σ grows with ‖W‖, and a dead filter (σ → 0)
    gets the largest norm of all. Its signal is what it sends through its own inputs, W H Wᵀ.
    """
    return measured if bn is None and measured is not None else signal_norm(W)


def _effective_norm(W: Floats, bn: Normalization | None, measured: Floats | None) -> Floats:
    """‖W_m·γ/√(σ²+ε)‖²."""
    return signal_norm(W, None if bn is None else bn.gain)


def _output_variance(W: Floats, bn: Normalization | None, measured: Floats | None) -> Floats:
    """Variance of the filter's output, BatchNorm's σ² or measured."""
    if bn is not None:
        return bn.variance
    if measured is not None:
        return measured
    raise OptionError(
        "criterion output-variance needs images: this model has layers without BatchNormalization"
    )


def _bn_scale(W: Floats, bn: Normalization | None, measured: Floats | None) -> Floats:
    """|γ|; 1 for every filter of a layer without BatchNorm."""
    return np.ones(len(W)) if bn is None else np.abs(bn.gamma)


def _l1_norm(W: Floats, bn: Normalization | None, measured: Floats | None) -> Floats:
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


def normalization(constants: Constants, readers: Readers, layer: Layer) -> Normalization | None:
    """The BatchNormalization that alone reads the layer, or None."""
    node = readers.sole(layer.output)
    if node is None or node.op_type != "BatchNormalization":
        return None
    names = (node.input[1], node.input[4])
    if any(n not in constants for n in names):
        return None
    gamma, var = (constants.value(n).astype(np.float64) for n in names)
    return Normalization(gamma, var, float(attributes(node).get("epsilon", 1e-5)))


def unnormalized_outputs(analysis: Analysis) -> dict[str, int]:
    """Outputs (with channel axis) of layers that no BatchNormalization follows."""
    readers = Readers(analysis.model)
    first = analysis.first_labels
    return {
        x.output: x.channel_axis
        for x in analysis.layers
        if x.index in first and normalization(analysis.constants, readers, x) is None
    }


def class_scores(
    analysis: Analysis, criterion: str, variances: Mapping[str, Floats] | None = None
) -> tuple[Floats, Floats]:
    """Score (G,) and number of filters (G,) of each class.

    A filter's score is its criterion divided by the mean over its layer, so that layers of
    different scale can be ranked together; a class scores the mean over its filters.

    Args:
        analysis: the labelled model.
        criterion: key of `CRITERIA`.
        variances: measured variance (M,) of layers' outputs, by output tensor.

    Raises:
        OptionError: the criterion needs measured variances.
    """
    score = CRITERIA[criterion]
    total = np.zeros(len(analysis.classes))
    count = np.zeros(len(analysis.classes))
    readers = Readers(analysis.model)
    first_labels = analysis.first_labels
    for layer in analysis.layers:
        first = first_labels.get(layer.index)
        if first is None:
            continue
        W = layer.as_filters(analysis.constants.value(layer.weight)).astype(np.float64)
        bn = normalization(analysis.constants, readers, layer)
        norms = score(W, bn, (variances or {}).get(layer.output))
        mean = norms.mean()
        norms = norms / mean if mean > 0 else norms
        of = analysis.classes.of[first : first + layer.filters]
        np.add.at(total, of, norms)
        np.add.at(count, of, 1.0)
    return np.divide(total, count, out=np.full(total.size, np.inf), where=count > 0), count
