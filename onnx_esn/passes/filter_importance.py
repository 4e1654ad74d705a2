"""How much an error in a filter's weights matters, as far as weights alone can tell.

A ReLU network computes the same when a channel is scaled by a and the weights that read it by 1/a,
and folding a BatchNormalization scales filters too. Squared error, with or without the gain of the
BatchNormalization, depends on those arbitrary scales: in depthwise networks, where they differ by
orders of magnitude within a layer, it starves the channels that are stored small and read large.
The error relative to the filter's own energy, ‖E_f‖²/‖W_f‖², does not, so it is what we add up,
filters of a layer alike and layers alike: the mean noise-to-signal ratio of its channels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_esn.graph.batchnorm import BatchNorm
from onnx_esn.numerics.midrise import Bools, Floats

# A filter this much weaker than its layer's strongest one is lost in single precision: 2^-20 is
# eight units in the last place of what it is added to.
NEGLIGIBLE = 2.0**-20


def error_weights(W: Floats, live: Bools) -> Floats:
    """Return w_f (M,) by which Σ_f w_f·‖E_f‖² is the layer's mean noise-to-signal ratio.

    W is (M, K). Filters that are not live (M,), or all zero, weigh 0; with E = W the sum is 1.
    """
    energy = np.einsum("mk,mk->m", W, W)
    counted = live & (energy > 0)
    inverse = np.divide(1.0, energy, out=np.zeros(energy.shape), where=counted)
    return np.asarray(inverse / max(int(counted.sum()), 1))


def dead_filters(W: npt.ArrayLike, norm: BatchNorm | None) -> Bools:
    """Return which filters (M,) of W (M, K) contribute nothing: all zero, or as good as.

    That is g·max|w| up to 2^-20 of the layer's largest, g = |γ|/√(σ² + ε) where
    BatchNormalization follows. Exporters leave such filters behind where training with weight
    decay has killed a channel; any code for them would be a code for noise.
    """
    peak = np.abs(np.asarray(W, dtype=np.float64)).max(axis=1, initial=0.0)
    if norm is not None:
        peak = peak * np.abs(norm.gain)
    return np.asarray(peak <= NEGLIGIBLE * peak.max(initial=0.0))
