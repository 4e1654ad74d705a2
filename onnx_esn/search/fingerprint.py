"""What a result depends on, as a hash: the model, the samples, the options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import onnx

from onnx_esn.calibration import CalibrationSet

_BATCH = 64


def fingerprint_model(model: onnx.ModelProto) -> str:
    """A hash of the whole model, weights included."""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


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


def fingerprint_options(model: str, images: str, options: Mapping[str, Any]) -> str:
    """The key of one result: both hashes, the options, and the version of this package."""
    document = {
        "model": model,
        "images": images,
        "options": dict(options),
        "version": metadata.version("onnx-esn"),
    }
    text = json.dumps(document, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
