"""How much an error in a filter's weights matters, as far as weights alone can tell.

Two answers, both flawed:

- relative, ‖E_f‖²/‖W_f‖²: the noise-to-signal ratio of the channel. A ReLU network computes the
  same when a channel is scaled by a and its readers by 1/a, and this ratio does not change. But it
  gives a filter that hardly speaks as much weight as one that carries the layer.
- absolute, ‖E_f‖²/Σ_f ‖W_f‖²: loud filters count for more, as they should where scales mean
  something (in front of a residual sum). But in depthwise networks, where the arbitrary scales
  differ by orders of magnitude, it starves the channels that are stored small and read large.

We add up the geometric mean of the two, filters of a layer together and layers alike. It halves,
in decibels, what each gets wrong, and did better than either on the networks we tried
(docs/concepts/allocation.md).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_esn.graph.norms.batchnorm import BatchNorm
from onnx_esn.numerics.midrise import Bools, Floats

# A filter this much weaker than its layer's strongest one is lost in single precision: 2^-20 is
# eight units in the last place of what it is added to.
NEGLIGIBLE = 2.0**-20


def energy_weights(energy: Floats, live: Bools) -> Floats:
    """Return w_f (M,) by which Σ_f w_f·‖E_f‖² is the layer's distortion.

    With the filters' energies e_f = ‖W_f‖² (M,), w_f = 1/√(n·e_f·Σe) over the n live filters: the
    geometric mean of the relative weight 1/(n·e_f) and the absolute one 1/Σe. Filters that are not
    live (M,), or all zero, weigh 0.
    """
    counted = live & (energy > 0)
    total = float(energy[counted].sum()) * max(int(counted.sum()), 1)
    inverse = np.divide(1.0, energy, out=np.zeros(energy.shape), where=counted)
    return np.asarray(np.sqrt(inverse / total) if total > 0 else inverse)


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
