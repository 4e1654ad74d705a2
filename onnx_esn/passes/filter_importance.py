"""How much an error in a filter's weights shows in the layer's output, without any image.

Behind a BatchNormalization, an error E_f of filter f adds the power g_f²·p_f·‖E_f‖² to an output
whose power is Σ_f γ_f², with the gain g = γ/√(σ² + ε) and the mean power p of the inputs that the
filter reads. The running variances tell p: over the filters of one convolution group, which read
the same inputs, Σσ_f² = p·Σ‖W_f‖² for white inputs. In a depthwise layer each filter has an input
of its own and p differs from channel to channel, in a dense one p is one number and drops out when
errors are measured relative to the layer's output.

Without BatchNormalization g = p = 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_esn.graph.batchnorm import BatchNorm
from onnx_esn.numerics.midrise import Bools, Floats

# A filter this much weaker than its layer's strongest one is lost in single precision: 2^-20 is
# eight units in the last place of what it is added to.
NEGLIGIBLE = 2.0**-20


def error_weights(W: Floats, norm: BatchNorm | None, groups: int) -> Floats:
    """Return the weights w_f (M,) by which Σ_f w_f·‖E_f‖² is the layer's noise-to-signal ratio.

    W is (M, K), its filters in order of their `groups`. With E = W the sum is 1; all weights are 0
    where the layer is all zero.
    """
    energy = np.einsum("mk,mk->m", W, W)
    w = np.ones(W.shape[0])
    if norm is not None:
        variance = norm.variance.reshape(groups, -1).sum(axis=1)
        of_group = energy.reshape(groups, -1).sum(axis=1)
        power = np.divide(variance, of_group, out=np.zeros(groups), where=of_group > 0)
        w = np.square(norm.gain) * np.repeat(power, W.shape[0] // groups)
    total = float(w @ energy)
    return w / total if total > 0 else np.zeros(W.shape[0])


def dead_filters(W: npt.ArrayLike, norm: BatchNorm | None) -> Bools:
    """Return which filters (M,) of W (M, K) contribute nothing: all zero, or as good as.

    That is g·max|w| up to 2^-20 of the layer's largest. Exporters leave such filters behind where
    training with weight decay has killed a channel; any code for them would be a code for noise.
    """
    peak = np.abs(np.asarray(W, dtype=np.float64)).max(axis=1, initial=0.0)
    if norm is not None:
        peak = peak * np.abs(norm.gain)
    return np.asarray(peak <= NEGLIGIBLE * peak.max(initial=0.0))
