"""The divergence of outputs to second order, by random directions.

For small changes δ of one sample's outputs the divergence is a quadratic form,

    divergence ≈ δᵀ F δ,

and a random u with E[u uᵀ] = F turns it into the mean of (u·δ)². What the mean of a backward pass
from u tells of every place in a model at once, would otherwise take a forward pass for each.

- Class scores z: KL ≈ ½ δᵀ(diag(p) − p pᵀ)δ, p = softmax(z). With ε of independent ±1,
  u = (√p∘ε − p·(√p·ε)) / √2. Labels drawn from p have the same second moment, but classes that
  are hardly ever drawn then seem not to matter.
- Probabilities p: the same by way of log p.
- Numbers: `output_error`'s mean over c of noise_c / signal_c, u = ε / √(C·signal_c).

Classes are looked at with p at temperature 2, as in distillation (Hinton et al., 2015): where the
model is sure, the scores of the other classes would not count at all, and on other images they do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_esn.numerics.agreement import class_axis, is_probability
from onnx_esn.numerics.midrise import Floats
from onnx_esn.numerics.output_error import channel_axis, channel_squares

TEMPERATURE = 2.0
_LEAST_PROBABILITY = 1e-7  # 1/p has to stay within float32
_LEAST_SIGNAL = 1e-7  # of the largest


def random_directions(
    outputs: npt.ArrayLike, rng: np.random.Generator, temperature: float = TEMPERATURE
) -> Floats:
    """Return u like `outputs` (N, …), so that E[(u_n·δ_n)²] is the divergence of sample n.

    Args:
        outputs: the reference's, of all samples: classes (see `agreement`) or numbers.
        rng: draws the signs.
        temperature: of the classes; 1 for the divergence itself.
    """
    ref = np.asarray(outputs, np.float64)
    sign = np.asarray(rng.integers(0, 2, ref.shape) * 2.0 - 1.0, np.float64)
    axis = class_axis(ref)
    return _of_numbers(ref, sign) if axis is None else _of_classes(ref, sign, axis, temperature)


def is_quadratic(outputs: npt.ArrayLike) -> bool:
    """Whether the divergence of outputs is quadratic as far as rounding goes.

    That of numbers in several channels is not: a channel that is lost counts one, however far off,
    and a detector's silent classes are lost at once, where squares over their signals never end.
    """
    ref = np.asarray(outputs, np.float64)
    axis = channel_axis(ref.shape)
    return class_axis(ref) is not None or axis is None or ref.shape[axis] == 1


def _of_classes(ref: Floats, sign: Floats, axis: int, temperature: float) -> Floats:
    from scipy.special import softmax

    known = is_probability(ref, axis)
    given = np.maximum(ref, _LEAST_PROBABILITY)
    p = softmax((np.log(given) if known else ref) / temperature, axis=axis)
    root = np.sqrt(p) * sign
    u = root - p * root.sum(axis=axis, keepdims=True)
    places = ref.size / (len(ref) * ref.shape[axis])
    u *= np.sqrt(0.5 / places)
    return np.asarray(u / given if known else u)


def _of_numbers(ref: Floats, sign: Floats) -> Floats:
    axis = channel_axis(ref.shape)
    signal = channel_squares(ref, ref, axis)[0].mean(axis=0)
    least = max(_LEAST_SIGNAL * float(signal.max(initial=0.0)), np.finfo(float).tiny)
    scale = 1.0 / np.sqrt(signal.size * np.maximum(signal, least))
    shape = np.ones(ref.ndim, np.int64)
    shape[0 if axis is None else axis] = signal.size
    return np.asarray(sign * scale.reshape(shape))
