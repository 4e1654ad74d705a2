"""What a set holds, as a hash."""

from __future__ import annotations

import hashlib

import numpy as np

from .calibration_set import CalibrationSet

_BATCH = 64


def fingerprint_set(images: CalibrationSet) -> str:
    """A hash of every sample as the model gets it, and of the labels.

    It covers the images, their order and the recipe, and does not depend on where the files are.
    """
    digest = hashlib.sha256()
    for batch in images.batches(_BATCH):
        for name in sorted(batch.feeds):
            samples = batch.feeds[name][: batch.count]
            digest.update(f"{name} {samples.dtype} {samples.shape[1:]}".encode())
            digest.update(np.ascontiguousarray(samples).data)
    if images.labels is not None:
        digest.update(b"labels")
        digest.update(np.ascontiguousarray(images.labels).data)
    return digest.hexdigest()
