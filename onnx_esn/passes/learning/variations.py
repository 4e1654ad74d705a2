"""Variations of images that any reference can be asked about: mirrored, moved, blended.

No label is needed, so that nothing has to stay true of a varied image but what the reference makes
of it. Blends: Zhang et al. (2018), "mixup"; that a teacher sees the same varied image: Beyer et al.
(2022), "Knowledge distillation: a good teacher is patient and consistent".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_MOST_MOVED = 1 / 10  # of height and width
_BLENDED = 0.0  # share of batches


def varied(x: Array, rng: np.random.Generator) -> Array:
    """A batch of images (N, C, H, W) of the same shape and type; what is none stays as it is."""
    if x.ndim != 4 or x.dtype.kind != "f" or min(x.shape[2:]) < 8:
        return x
    mirrored = rng.random(len(x)) < 0.5
    x = np.where(mirrored[:, None, None, None], x[..., ::-1], x)
    x = _moved(x, rng)
    if rng.random() < _BLENDED:
        share = rng.random((len(x), 1, 1, 1)).astype(x.dtype)
        x = share * x + (1 - share) * x[rng.permutation(len(x))]
    return np.ascontiguousarray(x)


def _moved(x: Array, rng: np.random.Generator) -> Array:
    """Each image by some pixels; the edge is repeated."""
    height, width = x.shape[2:]
    far = [int(n * _MOST_MOVED) for n in (height, width)]
    padded = np.pad(x, ((0, 0), (0, 0), (far[0],) * 2, (far[1],) * 2), mode="edge")
    down, right = (rng.integers(0, 2 * n + 1, len(x)) for n in far)
    cuts = [
        image[:, a : a + height, b : b + width]
        for image, a, b in zip(padded, down, right, strict=True)
    ]
    return np.stack(cuts)
